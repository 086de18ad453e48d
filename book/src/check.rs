//! Checks of the book: no broken link, and no number that comes from no record.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use regex::Regex;

use crate::chapters;

static ID: LazyLock<Regex> = LazyLock::new(|| pattern(r#"\sid="([^"]+)""#));
static TARGET: LazyLock<Regex> = LazyLock::new(|| pattern(r#"\s(?:href|src)="([^"]+)""#));
static SCRIPT: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)<script.*?</script>"));

/// A number with a unit, or a comparison in words.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?ix) \b [0-9][0-9.,_]* \s?
        (?: % | (?: (?:ns|[µu]s|ms|s|[KMG]i?B|bytes?|times|fold|percent|seconds?|minutes?
            |(?:nano|micro|milli)seconds?|cycles?|instructions?|(?:system\ )?calls?|switches
            |messages?|lines?|connections?|clients?|threads|processes|x)\b ) )",
    )
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

/// The links of all pages below `out` that lead nowhere. A link to another host is not followed.
///
/// # Errors
///
/// When a page cannot be read.
pub fn broken_links(out: &Path) -> Result<Vec<String>> {
    let mut pages = BTreeMap::new();
    collect(out, out, &mut pages)?;
    let ids = |page: &PathBuf| -> BTreeSet<String> {
        let text = pages.get(page).map(String::as_str).unwrap_or_default();
        ID.captures_iter(text).map(|id| id[1].to_owned()).collect()
    };
    let ids: BTreeMap<&PathBuf, BTreeSet<String>> =
        pages.keys().map(|page| (page, ids(page))).collect();
    let mut broken = Vec::new();
    for (page, text) in &pages {
        let text = SCRIPT.replace_all(text, "");
        for target in TARGET.captures_iter(&text).map(|target| target[1].to_owned()) {
            if target.contains("://") || target.starts_with("data:") {
                continue;
            }
            let (file, part) = target.split_once('#').unwrap_or((&target, ""));
            let folder = page.parent().unwrap_or(Path::new(""));
            let to = if file.is_empty() { Some(page.clone()) } else { joined(folder, file) };
            let there = to.as_ref().is_some_and(|to| out.join(to).is_file());
            // What follows `=` is no place but a choice, which the page of two servers reads.
            let place = part.is_empty() || part.contains('=');
            let known =
                place || to.is_some_and(|to| ids.get(&to).is_some_and(|it| it.contains(part)));
            if !there || !known {
                broken.push(format!("{}: {target} leads nowhere", page.display()));
            }
        }
    }
    Ok(broken)
}

/// The path of a target from the book's folder, if it does not lead out of it.
fn joined(folder: &Path, target: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir if !path.pop() => return None,
            Component::Normal(part) => path.push(part),
            _ => {}
        }
    }
    Some(path)
}

fn collect(root: &Path, folder: &Path, pages: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "html") {
            pages.insert(path.strip_prefix(root)?.to_owned(), fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The numbers with a unit in a chapter that no macro gives. What stands in code is no claim.
#[must_use]
pub fn typed_numbers(chapter: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (at, line) in chapter.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // What a macro gives is gone before what is in backticks, which a macro can stand in.
        let line = chapters::MACRO.replace_all(line, "");
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
        for number in NUMBER.find_iter(&prose) {
            found.push(format!("line {}: {} comes from no record", at + 1, number.as_str()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{broken_links, typed_numbers};

    #[test]
    fn a_number_with_a_unit_is_noticed() {
        for bad in [
            "takes 3 ms",
            "2.35 times the CPU",
            "about 20%",
            "64 KiB each",
            "1,000 connections",
            "5x",
        ] {
            assert_eq!(typed_numbers(bad).len(), 1, "{bad}");
        }
        for good in [
            "takes {{cpu threads ping-pong 1000}} times the CPU",
            "two threads, and 1 of them",
            "`sleep 3 ms`",
            "```\nsleep 3 ms\n```",
            "epoll(7)",
            "port 7007",
        ] {
            assert_eq!(typed_numbers(good), [""; 0], "{good}");
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_noticed() {
        let folder = std::env::temp_dir().join(format!("book-links-{}", std::process::id()));
        fs::create_dir_all(folder.join("a")).expect("a folder");
        let good = "<h1 id=\"top\"></h1><a href=\"a/b.html#it\">1</a><a href=\"#top\">2</a>\
                    <a href=\"https://host/x\">3</a>";
        fs::write(folder.join("index.html"), good).expect("a page");
        fs::write(folder.join("a/b.html"), "<p id=\"it\"><a href=\"../index.html\">1</a>")
            .expect("a page");
        assert_eq!(broken_links(&folder).expect("the pages"), [""; 0]);
        let bad = "<a href=\"c.html\">1</a><a href=\"../index.html#no\">2</a>\
                   <a href=\"../../index.html\">3</a><img src=\"no.png\">";
        fs::write(folder.join("a/b.html"), format!("<p id=\"it\">{bad}")).expect("a page");
        assert_eq!(broken_links(&folder).expect("the pages").len(), 4);
        fs::remove_dir_all(&folder).expect("the folder goes");
    }
}
