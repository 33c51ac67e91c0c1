//! Which paths may name a node, and the parts of a path.

/// True when a node may be created at `path`, or looked up by a request that checks its path: absolute, no empty, `.` or `..`
/// element, no trailing slash (but the root), and no character that ZooKeeper refuses.
///
/// ZooKeeper looks at UTF-16 units, so everything beyond U+FFFF is refused as a surrogate.
#[must_use]
pub fn is_valid(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    rest.is_empty() || (rest.split('/').all(is_element) && !rest.chars().any(is_refused))
}

fn is_element(element: &str) -> bool {
    !matches!(element, "" | "." | "..")
}

const fn is_refused(c: char) -> bool {
    matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)
}

/// The parent's path, by the last slash alone: "" for children of the root. `None` without a slash or with a NUL.
#[must_use]
pub fn parent(path: &str) -> Option<&str> {
    if path.as_bytes().contains(&0) {
        return None;
    }
    path.rfind('/').map(|slash| &path[..slash])
}

/// The nodes that are always there: no client may delete them.
#[must_use]
pub fn is_reserved(path: &str) -> bool {
    matches!(path, "/" | "/zookeeper" | "/zookeeper/quota" | "/zookeeper/config")
}

/// One name for one node: "" and "/" are both the root.
#[must_use]
pub fn canonical(path: &str) -> &str {
    if path == "/" { "" } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_zookeeper_takes_and_refuses() {
        for good in [
            "/",
            "/a",
            "/a/b",
            "/...",
            "/a..",
            "/..a",
            "/a.b",
            "/ ",
            "/ä",
            "/\u{d7ff}",
            "/\u{f900}",
            "/\u{ffef}",
        ] {
            assert!(is_valid(good), "{good:?}");
        }
        for bad in [
            "",
            "a",
            "a/b",
            "//",
            "/a/",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/./a",
            "/../a",
            "/a/.",
            "/a/..",
            "/a/./b",
            "/a/../b",
            "/\0",
            "/a\u{1}",
            "/\u{1f}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{ffff}",
            "/\u{10000}",
            "/\u{1f600}",
        ] {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_parent_is_what_stands_before_the_last_slash() {
        assert_eq!(parent("/"), Some(""));
        assert_eq!(parent("/a"), Some(""));
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(parent("/a/"), Some("/a"));
        assert_eq!(parent("a"), None);
        assert_eq!(parent("/a\0"), None);
    }
}
