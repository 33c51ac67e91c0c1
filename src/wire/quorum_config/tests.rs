use super::*;

fn set(ids: &[i64]) -> BTreeSet<ServerId> {
    ids.iter().map(|id| ServerId(*id)).collect()
}

const THREE: &str = "server.1=a:2888:3888:participant;0.0.0.0:2181\nserver.2=b:2888:3888:participant\n\
                     server.3=[::1]:2888:3888:participant\nserver.4=d:2888:3888:observer\nversion=100000000";

const GROUPS: &str = "server.1=a:1:2:participant\nserver.2=b:1:2:participant\nserver.3=c:1:2:participant\n\
                      server.4=d:1:2:participant\nserver.5=e:1:2:participant\ngroup.1=1:2:3\ngroup.2=4\ngroup.3=5\n\
                      weight.1=1\nweight.2=1\nweight.3=1\nweight.4=2\nweight.5=0\nversion=0";

#[test]
fn the_text_comes_back_as_it_went() {
    for text in [THREE, GROUPS] {
        let config = QuorumConfig::parse_bytes(text.as_bytes()).unwrap();
        assert_eq!(config.to_string(), text);
    }
    let version = QuorumConfig::parse("server.1=a:1:2\nversion=ffffffffffffffff").unwrap().version();
    assert_eq!(version, -1, "as Long.toHexString prints it");
}

#[test]
fn a_majority_of_participants_is_a_quorum() {
    let config = QuorumConfig::parse(THREE).unwrap();
    assert_eq!(config.version(), 1 << 32);
    assert!(!config.contains_quorum(&set(&[])) && !config.contains_quorum(&set(&[1])));
    assert!(config.contains_quorum(&set(&[1, 3])));
    assert!(!config.contains_quorum(&set(&[1, 4, 9])), "observers and strangers do not count");
    assert_eq!(
        (config.weight(ServerId(1)), config.weight(ServerId(4)), config.weight(ServerId(9))),
        (1, 0, 0)
    );
}

#[test]
fn a_hierarchical_quorum_is_most_of_the_weight_in_most_groups() {
    let config = QuorumConfig::parse(GROUPS).unwrap();
    // Group 3 has no weight and does not count: both others are needed.
    assert!(config.contains_quorum(&set(&[1, 2, 4])));
    assert!(!config.contains_quorum(&set(&[1, 2, 3, 5])));
    assert!(!config.contains_quorum(&set(&[1, 4, 5])));
    assert_eq!(config.weight(ServerId(5)), 0);
}

#[test]
fn any_two_quorums_of_one_configuration_meet() {
    for text in [THREE, GROUPS] {
        let config = QuorumConfig::parse(text).unwrap();
        let subsets =
            (0u32..32).map(|bits| (1..=5).filter(|i| bits >> (i - 1) & 1 == 1).map(ServerId).collect());
        let quorums: Vec<BTreeSet<ServerId>> = subsets.filter(|s| config.contains_quorum(s)).collect();
        assert!(!quorums.is_empty());
        for (a, b) in quorums.iter().flat_map(|a| quorums.iter().map(move |b| (a, b))) {
            assert!(a.intersection(b).any(|id| config.is_voter(*id)), "{a:?} {b:?}");
        }
    }
}

#[test]
fn what_is_no_configuration_is_refused() {
    use QuorumConfigError as E;
    let parse = |text: &str| QuorumConfig::parse(text).unwrap_err();
    assert_eq!(parse(""), E::NoVoter);
    assert_eq!(parse("server.1=a:1:2:observer"), E::NoVoter);
    assert_eq!(parse("server.1=a:1:2\nrubbish"), E::Line { line: 2 });
    assert_eq!(parse("server.x=a:1:2"), E::Line { line: 1 });
    assert_eq!(parse("server.1=a:1:2\nversion=0x1"), E::Line { line: 2 });
    assert_eq!(parse("server.1=a:1:2\nclientPort=1"), E::Line { line: 2 });
    assert_eq!(parse("server.1=a:1"), E::Member { line: 1, source: MemberError::Form });
    assert_eq!(parse("server.1=a:1:2\ngroup.1=1\ngroup.2=1"), E::TwoGroups(ServerId(1)));
    assert_eq!(parse("server.1=a:1:2\nweight.1=3"), E::NoGroup(ServerId(1)));
    assert_eq!(parse("server.1=a:1:2\ngroup.1=1:2"), E::NoWeight(ServerId(2)));
    assert_eq!(parse("server.1=a:1:2\ngroup.1=1\nweight.1=-1"), E::Line { line: 3 });
    assert_eq!(QuorumConfig::parse_bytes(b"\xff").unwrap_err(), E::NotText { at: 0 });
    assert_eq!(
        parse(&" ".repeat(CONFIG_TEXT_BYTES_MAX + 1)),
        E::TooLong { bytes: CONFIG_TEXT_BYTES_MAX + 1 }
    );
    let many: String = (0..=MEMBERS_MAX).map(|i| format!("server.{i}=a:1:2\n")).collect();
    assert_eq!(parse(&many), E::TooManyMembers);
}

#[test]
fn equal_ensembles_may_differ_in_version() {
    let config = QuorumConfig::parse(THREE).unwrap();
    assert!(config.is_same_ensemble(&config.clone().with_version(7)));
    assert!(!config.is_same_ensemble(&QuorumConfig::parse(GROUPS).unwrap()));
}
