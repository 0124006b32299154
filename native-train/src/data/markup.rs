//! Text that was cut out of web pages, as a reader of the page sees it.

use serde_json::Value;

use super::values::is_empty;

/// Tags that part what stands before them from what stands behind.
const PARTING: [&str; 8] = ["br", "div", "hr", "li", "p", "td", "th", "tr"];

/// A value with the texts in it as plain text; parts of a list of which nothing is left are left out.
pub(super) fn plain(value: Value) -> Value {
    match value {
        Value::String(text) => plain_text(&text).into(),
        Value::Array(parts) => {
            let parts = parts.into_iter().map(plain).filter(|part| !is_empty(part));
            parts.collect::<Vec<_>>().into()
        }
        Value::Object(parts) => parts.into_iter().map(|(name, part)| (name, plain(part))).collect(),
        other => other,
    }
}

/// A text without tags, its entities as characters, and one blank wherever there is white space.
fn plain_text(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((before, behind)) = rest.split_once('<') {
        text.push_str(before);
        match tag(behind) {
            Some((name, length)) => {
                if PARTING.contains(&name.to_ascii_lowercase().as_str()) {
                    text.push(' ');
                }
                rest = &behind[length..];
            }
            None => {
                text.push('<');
                rest = behind;
            }
        }
    }
    text.push_str(rest);
    // Behind the tags: what an entity stands for begins none.
    let text = html_escape::decode_html_entities(&text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name of the tag that goes on behind a `<`, and the length up to its end; nothing where the
/// character stands for itself.
fn tag(behind: &str) -> Option<(&str, usize)> {
    let end = behind.find(['<', '>']).filter(|&end| behind[end..].starts_with('>'))?;
    let inside = &behind[..end];
    let name = inside.strip_prefix('/').unwrap_or(inside);
    let length = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    name.starts_with(|c: char| c.is_ascii_alphabetic()).then_some((&name[..length], end + 1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_what_the_page_shows() {
        for (page, shown) in [
            ("Kettle", "Kettle"),
            ("Salt &amp; Pepper &quot;Mill&quot;", "Salt & Pepper \"Mill\""),
            ("Nan&#39;s Caf&eacute;&nbsp;&#x2014; caf\u{e9}", "Nan's Café — café"),
            ("<span id=\"x\">Kettle</span>", "Kettle"),
            ("H<sub>2</sub>O<br/>and<P>air", "H2O and air"),
            ("\n\n  Visit\tNan's \r\n store ", "Visit Nan's store"),
            ("</span></span></span>", ""),
            // What is neither stands for itself.
            ("Size < 5, 3<4> 2 & a <b", "Size < 5, 3<4> 2 & a <b"),
            ("I <3 you> a<b and <i>c</i>", "I <3 you> a<b and c"),
            ("AT&T; &nosuch; &#xd800; &", "AT&T; &nosuch; &#xd800; &"),
            // An entity is read once, and begins no tag.
            ("Learn &lt;b&gt; &amp;amp;", "Learn <b> &amp;"),
        ] {
            assert_eq!(plain_text(page), shown, "{page}");
        }
    }

    #[test]
    fn parts_of_which_nothing_is_left_are_left_out() {
        let value = json!([["Home &amp; Kitchen", "</span>", 5], ["<br>"], {"a": "<i>b</i>"}]);
        assert_eq!(plain(value), json!([["Home & Kitchen", 5], {"a": "b"}]));
    }
}
