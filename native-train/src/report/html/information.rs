//! What the codes tell about the categories of the items.

use std::fmt::Write;

use super::chart::{Bar, bars};
use super::markup::escape;
use super::missing;
use crate::report::format::{count, percent, score, thousands};
use crate::report::{CategoryInformation, Report, summary};

pub(super) fn section(report: &Report) -> String {
    if report.categories.is_empty() {
        return missing(report, "category information");
    }
    let (mut charts, mut rows) = (String::new(), String::new());
    for category in &report.categories {
        let CategoryInformation { field, depth, categories, items, prefixes, levels } = category;
        let step = match depth {
            0 => String::new(),
            depth => format!(", step {} of its path", depth + 1),
        };
        let name = format!("{} values of “{field}”{step}", thousands(*categories));
        let leading = (1..).zip(prefixes).map(|(length, s)| (summary::leading(length), s));
        // The first code alone is the first prefix.
        let alone = (1..).zip(levels).skip(1).map(|(level, s)| (format!("code {level} alone"), s));
        let _ = write!(
            rows,
            "<tr><th scope=\"rowgroup\" colspan=\"7\">{}, known of {}</th></tr>",
            escape(&name),
            count(*items, "item")
        );
        let mut bars_of = Vec::new();
        for (label, shares) in leading.chain(alone) {
            let _ = write!(
                rows,
                "<tr><td class=\"text\">{label}</td><td>{}</td><td>{}</td><td><b>{}</b></td>\
                 <td>{}</td><td>{}</td><td>{}</td></tr>",
                percent(shares.share),
                percent(shares.share_by_chance),
                percent(shares.share_beyond_chance),
                score(shares.nmi),
                score(shares.nmi_by_chance),
                score(shares.ami)
            );
            bars_of.push(Bar {
                label,
                share: shares.share,
                mark: Some(shares.share_by_chance),
                figure: percent(shares.share),
            });
        }
        let _ = write!(charts, "<div><h3>{}</h3>{}</div>", escape(&name), bars(&bars_of));
    }
    format!(
        "<div class=\"charts\">{charts}</div><div class=\"wide\"><table class=\"figures\"><thead>\
         <tr><th scope=\"col\">codes</th><th scope=\"col\">explained</th>\
         <th scope=\"col\">by chance</th><th scope=\"col\">beyond chance</th>\
         <th scope=\"col\">NMI</th>\
         <th scope=\"col\">NMI by chance</th><th scope=\"col\">AMI</th></tr></thead>{rows}\
         </table></div>"
    )
}
