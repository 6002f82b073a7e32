//! Texts that are safe to print, whatever bytes they were made from.

use mirror_engine::event::Key;
use std::path::Path;

/// One line without anything that steers a terminal: control characters, bytes that are not UTF-8 and invisible marks that
/// reorder text are shown as escapes (`\n`, `\x1b`, `\u{202e}`), and so is the backslash, so that the text is unambiguous.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| escape_char(c, &mut text));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// As [`escape`] for texts of ours that may hold names: line breaks and backslashes stay.
pub(crate) fn escape_lines(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || c == '\\' { escaped.push(c) } else { escape_char(c, &mut escaped) }
    }
    escaped
}

/// A key for people.
pub(crate) fn key_text(key: &Key) -> String {
    escape(key.as_bytes())
}

/// A path for people.
pub(crate) fn path_text(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

fn escape_char(c: char, text: &mut String) {
    match c {
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\\' => text.push_str("\\\\"),
        c if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", c as u32)),
        c if c.is_control() || is_invisible_mark(c) => text.push_str(&format!("\\u{{{:x}}}", c as u32)),
        c => text.push(c),
    }
}

/// Marks that hide or reorder what stands next to them (Unicode TR 36, "Trojan Source").
fn is_invisible_mark(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_names_stay_as_they_are() {
        assert_eq!(escape("Pictures/été 2025.jpg".as_bytes()), "Pictures/été 2025.jpg");
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(escape(b"a\x1b[2Jb\nc\td\\\x7f"), "a\\x1b[2Jb\\nc\\td\\\\\\x7f");
        assert_eq!(escape("\u{9b}31m\u{202e}gpj".as_bytes()), "\\u{9b}31m\\u{202e}gpj");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_shown_in_hexadecimal() {
        assert_eq!(escape(b"caf\xe9"), "caf\\xe9");
    }

    #[test]
    fn our_own_texts_keep_their_line_breaks() {
        assert_eq!(escape_lines("one\n\\ two \x1b"), "one\n\\ two \\x1b");
    }

    proptest! {
        #[test]
        fn any_bytes_become_one_printable_line(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!escape(&bytes).chars().any(char::is_control));
        }

        #[test]
        fn different_bytes_are_told_apart(left in proptest::collection::vec(any::<u8>(), 0..6), right in proptest::collection::vec(any::<u8>(), 0..6)) {
            prop_assert_eq!(left == right, escape(&left) == escape(&right));
        }
    }
}
