//! Text into HTML, and values into the template.

/// Text as it may stand in HTML and in attributes.
///
/// Titles come from strangers: besides what means something to a parser, control characters
/// become spaces, those among them that turn the direction of the text around included.
pub(super) fn escape(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = text.replace(|c: char| c.is_control() || turns(c), " ");
    html_escape::encode_quoted_attribute(&shown).into_owned()
}

/// Replaces every `{{name}}` of a template by its value. Values are not looked into, so a title
/// with braces stays what it is.
///
/// # Panics
/// For a name without a value: the template and its values are both ours.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        let value = values.iter().find(|(known, _)| *known == name);
        let Some((_, value)) = value else {
            panic!("the template has no value for {{{{{name}}}}}")
        };
        page.push_str(value);
        rest = after;
    }
    page + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_title_means_anything_to_the_parser() {
        assert_eq!(
            escape("<script>alert(\"x\" && 'y')</script>\0\u{202e}é"),
            "&lt;script&gt;alert(&quot;x&quot; &amp;&amp; &#x27;y&#x27;)&lt;/script&gt;  é"
        );
    }

    #[test]
    fn values_are_not_looked_into() {
        assert_eq!(fill("a {{x}} b {{y}} c", &[("x", "{{y}}"), ("y", "2")]), "a {{y}} b 2 c");
    }
}
