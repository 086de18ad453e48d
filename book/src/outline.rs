//! Cuts a source into sections: its head, its imports, and each function and type.

use anyhow::{Context, Result};
use serde::Serialize;
use syn::spanned::Spanned;
use syn::{File, ImplItem, Item, Type};

/// Lines of a source that belong together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Section {
    /// Tells it from all others of its source: `Conn::read`.
    pub key: String,
    /// Its first line; lines count from 0.
    pub from: usize,
    /// The line after its last.
    pub to: usize,
}

impl Section {
    /// The function's own name, without its type's.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.rsplit("::").next().unwrap_or_default()
    }
}

/// The sections of a source, which together are all of its lines but blank ones between them.
///
/// # Errors
///
/// When it is no Rust.
pub fn sections(text: &str) -> Result<Vec<Section>> {
    let file: File = syn::parse_str(text).context("no Rust")?;
    let lines: Vec<&str> = text.lines().collect();
    let mut cuts = vec![(0, "head".to_owned())];
    for item in &file.items {
        cut(item, &mut cuts);
    }
    for (from, _) in cuts.iter_mut().skip(1) {
        // A comment belongs to what follows it.
        while *from > 0 && is_comment(lines[*from - 1]) {
            *from -= 1;
        }
    }
    let mut sections: Vec<Section> = Vec::new();
    for (at, (from, key)) in cuts.iter().enumerate() {
        let end = cuts.get(at + 1).map_or(lines.len(), |(next, _)| *next);
        if let Some(last) = sections.last_mut().filter(|last| last.key == *key) {
            last.to = end;
        } else {
            sections.push(Section { key: key.clone(), from: *from, to: end });
        }
    }
    for section in &mut sections {
        while section.to > section.from && lines[section.to - 1].trim().is_empty() {
            section.to -= 1;
        }
    }
    sections.retain(|section| section.from < section.to);
    Ok(sections)
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") && !line.starts_with("//!")
}

/// Adds the lines on which an item and its methods begin.
fn cut(item: &Item, cuts: &mut Vec<(usize, String)>) {
    let from = first_line(item);
    match item {
        Item::Use(_) | Item::Mod(syn::ItemMod { content: None, .. }) | Item::ExternCrate(_) => {
            cuts.push((from, "imports".to_owned()));
        }
        Item::Fn(function) => cuts.push((from, function.sig.ident.to_string())),
        Item::Struct(item) => cuts.push((from, item.ident.to_string())),
        Item::Enum(item) => cuts.push((from, item.ident.to_string())),
        Item::Trait(item) => cuts.push((from, item.ident.to_string())),
        Item::Type(item) => cuts.push((from, item.ident.to_string())),
        Item::Static(_) | Item::Const(_) => cuts.push((from, "constants".to_owned())),
        Item::Mod(item) => cuts.push((from, item.ident.to_string())),
        Item::Impl(item) => {
            let owner = type_name(&item.self_ty);
            cuts.push((from, format!("impl {owner}")));
            for member in &item.items {
                if let ImplItem::Fn(method) = member {
                    cuts.push((first_line(method), format!("{owner}::{}", method.sig.ident)));
                }
            }
        }
        _ => cuts.push((from, "others".to_owned())),
    }
}

fn first_line(part: &impl Spanned) -> usize {
    part.span().start().line.saturating_sub(1)
}

fn type_name(whole: &Type) -> String {
    match whole {
        Type::Path(path) => {
            let last = path.path.segments.last();
            last.map(|segment| segment.ident.to_string()).unwrap_or_default()
        }
        Type::Reference(to) => type_name(&to.elem),
        _ => "type".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::sections;

    #[test]
    fn functions_and_methods_are_cut_with_their_comments() {
        let text = "//! Head.\n\nuse a::b;\nuse c;\n\nfn main() {\n    run();\n}\n\n/// Reads.\n\
                    struct Conn;\n\nimpl Conn {\n    // Why.\n    #[must_use]\n\
                    \x20   fn read(&self) {}\n\n    fn write(&self) {}\n}\n";
        let found = sections(text).expect("it is Rust");
        let found: Vec<(&str, usize, usize)> =
            found.iter().map(|section| (&*section.key, section.from, section.to)).collect();
        assert_eq!(
            found,
            [
                ("head", 0, 1),
                ("imports", 2, 4),
                ("main", 5, 8),
                ("Conn", 9, 11),
                ("impl Conn", 12, 13),
                ("Conn::read", 13, 16),
                ("Conn::write", 17, 19),
            ]
        );
    }
}
