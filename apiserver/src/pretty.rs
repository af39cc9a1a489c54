//! Indentation of JSON text, without parsing it into values: order, numbers and escapes stay as they are.

/// How much text is indented at most, in bytes.
pub(crate) const LIMIT: usize = 4 << 20;

/// Indents JSON text by two spaces a level, as Go's `json.Indent` does. The text has to be JSON.
pub(crate) fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut opened = false;
    for &byte in json {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        if opened && !matches!(byte, b'}' | b']') {
            depth += 1;
            new_line(&mut out, depth);
        }
        match byte {
            b'{' | b'[' => out.push(byte),
            b'}' | b']' => {
                if !opened {
                    depth = depth.saturating_sub(1);
                    new_line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
        opened = matches!(byte, b'{' | b'[');
    }
    out
}

fn new_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + depth * 2, b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_text_is_indented_and_strings_are_left_alone() {
        let text = br#"{"a":[1,{"b":"x{,\"]"}],"c":{},"d":[]}"#;
        let want = "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x{,\\\"]\"\n    }\n  ],\n  \"c\": {},\n  \"d\": []\n}";
        assert_eq!(String::from_utf8(indent(text)).unwrap(), want);
    }
}
