//! The guestbook's page. It works without scripts.

use super::store::Entry;
use super::{LONGEST_TEXT, Place};
use crate::html::escaped;

const STYLE: &str = include_str!("page.css");

/// The page with these entries, answered here.
pub(crate) fn render(place: &Place<'_>, entries: &[Entry]) -> String {
    let entries: String = match entries {
        [] => "<li><small>Nobody has signed yet. Be the first.</small></li>".to_owned(),
        entries => entries.iter().map(item).collect(),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Guestbook at {node}</title><style>{STYLE}</style></head><body>\n\
         <header><h1>Guestbook</h1>\
         <p>answered by <b>{node}</b> <span class=\"{role}\">{role}</span></p></header>\n\
         <form method=\"post\" action=\"/\">\
         <input name=\"text\" placeholder=\"Leave a word\" aria-label=\"Your entry\" \
         maxlength=\"{LONGEST_TEXT}\" required autofocus><button>Sign</button></form>\n\
         <ul>{entries}</ul>\n\
         <footer><small>Write through any node, read it at once through any other. \
         The same as JSON: <a href=\"/api/entries\">entries</a>, <a href=\"/api/node\">node</a>.\
         </small></footer>\n</body></html>\n",
        node = escaped(place.node),
        role = escaped(place.role),
    )
}

fn item(entry: &Entry) -> String {
    format!(
        "<li>{}<br><small>#{} through {} at <time>{}</time></small></li>\n",
        escaped(&entry.text),
        entry.id,
        escaped(&entry.node),
        escaped(&entry.at)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let nasty = "</title></li><script>alert('1')</script>\"&";
        let entry = Entry { id: 1, text: nasty.into(), at: nasty.into(), node: nasty.into() };
        let page = render(&Place { node: nasty, role: nasty }, &[entry]);
        assert!(!page.contains("<script") && !page.contains("alert('"), "{page}");
        assert_eq!(page.matches("</title>").count(), 1);
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)"), "{page}");
    }
}
