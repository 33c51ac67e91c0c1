use super::*;

const SALT: u64 = 0x1234_5678_9abc_def0;

fn sealed(payload: &[u8], offset: u64) -> (Vec<u8>, RecordHead) {
    let mut record = vec![0u8; record_bytes(payload.len())];
    record[RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + payload.len()].copy_from_slice(payload);
    let head = RecordHead {
        crc: 0,
        zxid: Zxid(0x1_0000_0007),
        prev: Chain { zxid: Zxid(0x1_0000_0006), crc: 77 },
        watermark: 4096,
        len: payload.len() as u32,
        kind: RecordKind::Txn,
    };
    let chain = seal_record(&mut record, &head, SALT, offset);
    (record, RecordHead { crc: chain.crc, ..head })
}

fn reads_as_whole(record: &[u8], salt: u64, offset: u64) -> bool {
    parse_head(record, salt, offset).is_some_and(|head| {
        record_is_whole(&record[..head.record_bytes().min(record.len() as u64) as usize], &head, salt, offset)
    })
}

#[test]
fn a_record_reads_back() {
    let (record, head) = sealed(b"hello world", 8192);
    assert_eq!(parse_head(&record, SALT, 8192), Some(head));
    assert!(record_is_whole(&record, &head, SALT, 8192));
    assert_eq!(payload(&record, &head), b"hello world");
    assert!(head.follows(Chain { zxid: Zxid(0x1_0000_0006), crc: 77 }));
    assert!(!head.follows(Chain { zxid: Zxid(0x1_0000_0006), crc: 78 }));
}

#[test]
fn f1_every_flipped_bit_of_a_record_is_seen() {
    let (record, _) = sealed(b"hello world", 8192);
    for bit in 0..record.len() * 8 {
        let mut bad = record.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!reads_as_whole(&bad, SALT, 8192), "bit {bit}");
    }
}

#[test]
fn f1_a_record_of_another_offset_or_another_life_does_not_validate() {
    let (record, _) = sealed(b"hello world", 8192);
    for offset in (0..1 << 16).step_by(8).filter(|&o| o != 8192) {
        assert_eq!(parse_head(&record, SALT, offset), None, "offset {offset}");
    }
    for salt in [0, 1, SALT ^ 1, SALT ^ (1 << 63), !SALT] {
        assert_eq!(parse_head(&record, salt, 8192), None, "salt {salt:x}");
    }
}

#[test]
fn f4_zeroes_are_nothing_whatever_the_salt() {
    for salt in 0..1000 {
        assert_eq!(parse_head(&[0; RECORD_HEAD_BYTES], salt, 4096), None);
    }
}

#[test]
fn every_flipped_bit_of_a_segment_header_is_seen() {
    let head = SegmentHead {
        number: 3,
        salt: SALT,
        identity: 9,
        segment_bytes: 16384,
        synced: LogPos { segment: 2, offset: 5000 },
    };
    let page = head.encode();
    assert_eq!(SegmentHead::decode(&page), Ok(head));
    for bit in 0..page.len() * 8 {
        let mut bad = page;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHead::decode(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn a_header_of_a_later_version_is_named_not_called_damaged() {
    let mut page =
        SegmentHead { number: 1, salt: 1, identity: 0, segment_bytes: 16384, synced: LogPos::default() }
            .encode();
    put_u32(&mut page, HEAD_VERSION_OFFSET, 2);
    put_u32(&mut page, HEAD_CRC_OFFSET, 0);
    let crc = crc32(&page);
    put_u32(&mut page, HEAD_CRC_OFFSET, crc);
    assert_eq!(SegmentHead::decode(&page), Err(HeadFault::Version(2)));
}

/// The field tables of the page are these constants.
#[test]
fn the_document_states_the_same_layout() {
    let page = include_str!("../../../docs/log_format.md");
    let mut expect = vec![];
    for (name, offset, bytes) in [
        ("magic", 0, 8),
        ("version", HEAD_VERSION_OFFSET, 4),
        ("header_bytes", HEAD_BYTES_OFFSET, 4),
        ("number", HEAD_NUMBER_OFFSET, 8),
        ("salt", HEAD_SALT_OFFSET, 8),
        ("identity", HEAD_IDENTITY_OFFSET, 8),
        ("segment_bytes", HEAD_SEGMENT_BYTES_OFFSET, 8),
        ("synced_segment", HEAD_SYNCED_SEGMENT_OFFSET, 8),
        ("synced_offset", HEAD_SYNCED_OFFSET_OFFSET, 8),
        ("header_crc", HEAD_CRC_OFFSET, 4),
        ("head_crc", RECORD_HEAD_CRC_OFFSET, 4),
        ("crc", RECORD_CRC_OFFSET, 4),
        ("zxid", RECORD_ZXID_OFFSET, 8),
        ("prev_zxid", RECORD_PREV_ZXID_OFFSET, 8),
        ("prev_crc", RECORD_PREV_CRC_OFFSET, 4),
        ("watermark", RECORD_WATERMARK_OFFSET, 4),
        ("len", RECORD_LEN_OFFSET, 4),
        ("kind", RECORD_KIND_OFFSET, 1),
        ("flags", RECORD_FLAGS_OFFSET, 1),
        ("reserved", RECORD_RESERVED_OFFSET, 2),
    ] {
        expect.push(format!("| {offset} | {bytes} | `{name}` |"));
    }
    for row in expect {
        assert!(page.contains(&row), "docs/log_format.md has no row {row:?}");
    }
}

/// The worked dump of the page is a real record.
#[test]
fn the_documents_hex_dump_is_a_valid_record() {
    let page = include_str!("../../../docs/log_format.md");
    let dump = page.split("<!-- dump -->").nth(1).expect("the page marks its dump");
    let bytes: Vec<u8> = dump
        .lines()
        .filter_map(|l| l.split_once(": ").map(|(_, hex)| hex.split("  ").next().unwrap_or("")))
        .flat_map(|hex| {
            hex.split_whitespace().map(|b| u8::from_str_radix(b, 16).expect("hex")).collect::<Vec<_>>()
        })
        .collect();
    let (record, _) = sealed(b"hello world", 8192);
    assert_eq!(bytes, record, "expected dump:\n{}", hex_dump(&record));
}

fn hex_dump(bytes: &[u8]) -> String {
    let rows = bytes.chunks(8).enumerate();
    rows.map(|(i, c)| {
        format!("{:04x}: {}\n", i * 8, c.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
    })
    .collect()
}
