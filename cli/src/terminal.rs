//! What clusters and agents say of themselves, as it may go to a terminal. A name or a message with control characters could write
//! over what was printed before, or change what the keyboard sends (CVE-2021-25743).

/// Characters of one thing that somebody else says; names have at most 253, messages seldom more than 1,000.
const LONGEST: usize = 4096;

/// The text with control characters and those that change the direction of writing spelled out, on one line, and not without end.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().take(LONGEST).flat_map(spelled_out).collect()
}

/// The same, but for lines, which stay.
pub(crate) fn lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(one_line).collect();
    lines.join("\n")
}

fn spelled_out(one: char) -> impl Iterator<Item = char> {
    // U+202A to U+202E and U+2066 to U+2069 embed and override directions (Unicode Standard Annex 9).
    let turns = matches!(one, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let escaped = one.is_control() || turns;
    let plain = (!escaped).then_some(one);
    let spelled = escaped.then(|| one.escape_default());
    plain.into_iter().chain(spelled.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_said_steers_a_terminal() {
        assert_eq!(one_line("jörg@пример \"a\\b\""), "jörg@пример \"a\\b\"");
        assert_eq!(
            one_line("a\u{1b}[2K\r\nb\u{9b}\u{202e}"),
            r"a\u{1b}[2K\r\nb\u{9b}\u{202e}"
        );
        assert_eq!(lines("one\ntwo\r"), "one\ntwo\\r");
        assert_eq!(one_line(&"x".repeat(100_000)).len(), LONGEST);
    }
}
