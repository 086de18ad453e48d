//! `--config FILE`: flags in a file of TOML, by their names. What the command line says wins.

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use toml::{Table, Value};

use crate::files;

/// What stands on the command line only.
const NOT_IN_A_FILE: [&str; 4] = ["config", "hash-password", "help", "version"];

/// The arguments that the file stands for, without those that the command line gives in other
/// words. Wrong values are left to the parser of arguments, which says what is wrong; an error is
/// one line that does not name the file.
pub(crate) fn arguments(
    path: &Path,
    command: &Command,
    given: &ArgMatches,
) -> Result<Vec<OsString>, String> {
    let text = files::read_text(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
    let table: Table = text.parse().map_err(|error| parse_error(&text, &error))?;
    let is_given = |arg: &Arg| {
        let source = given.value_source(arg.get_id().as_str());
        source == Some(ValueSource::CommandLine)
    };
    let excludes = |one: &Arg, other: &Arg| command.get_arg_conflicts_with(one).contains(&other);
    let is_excluded = |arg: &Arg| {
        let mut given = command.get_arguments().filter(|other| is_given(other));
        given.any(|other| excludes(arg, other) || excludes(other, arg))
    };
    let mut arguments = Vec::new();
    for (key, value) in &table {
        if NOT_IN_A_FILE.contains(&key.as_str()) {
            return Err(format!("{key} is for the command line only"));
        }
        let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(key)) else {
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                return Err(format!("there is no flag {key:?}"));
            }
            // The parser knows which flag is near.
            arguments.push(format!("--{key}").into());
            continue;
        };
        if !is_given(arg) && !is_excluded(arg) {
            arguments.extend(values(arg, key, value)?.into_iter().map(OsString::from));
        }
    }
    Ok(arguments)
}

/// One argument, or several for a list, or none for a switch that is off.
fn values(arg: &Arg, key: &str, value: &Value) -> Result<Vec<String>, String> {
    if !arg.get_action().takes_values() {
        let Value::Boolean(on) = value else { return Err(format!("{key} is true or false")) };
        return Ok(if *on { vec![format!("--{key}")] } else { Vec::new() });
    }
    match value {
        Value::Array(list) if matches!(arg.get_action(), clap::ArgAction::Append) => {
            list.iter().map(|value| one(key, value)).collect()
        }
        value => Ok(vec![one(key, value)?]),
    }
}

fn one(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(format!("--{key}={text}")),
        Value::Integer(number) => Ok(format!("--{key}={number}")),
        Value::Boolean(on) => Ok(format!("--{key}={on}")),
        other => Err(format!(
            "{key} is text in quotes, a whole number, true or false, and not {}",
            match other {
                Value::Array(_) => "a list",
                Value::Table(_) => "a table",
                Value::Float(_) => "a number with a point",
                _ => "a date",
            }
        )),
    }
}

/// What the parser says, and on which line of the file.
fn parse_error(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("line {line}: {}", error.message().replace('\n', "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        use clap::ArgAction::{Append, Set, SetTrue};
        Command::new("test").args([
            Arg::new("config").long("config"),
            Arg::new("listen").long("listen").action(Append),
            Arg::new("size").long("size").action(Set),
            Arg::new("public").long("public").action(SetTrue),
            Arg::new("one").long("one").conflicts_with("other"),
            Arg::new("other").long("other"),
        ])
    }

    fn arguments_of(text: &str, line: &[&str]) -> Result<Vec<String>, String> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("launch-config-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("write a file");
        let given = command().get_matches_from(["test"].iter().chain(line));
        let arguments = arguments(&path, &command(), &given);
        std::fs::remove_file(path).expect("remove the file");
        arguments.map(|all| all.iter().map(|it| it.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn each_kind_of_value_becomes_an_argument() {
        let text = "listen = [\"a:1\", \"b:2\"]\nsize = 5\npublic = true\none = \"x y\"\n";
        let expected = ["--listen=a:1", "--listen=b:2", "--one=x y", "--public", "--size=5"];
        assert_eq!(arguments_of(text, &[]).expect("all known"), expected);
        assert_eq!(arguments_of("public = false", &[]), Ok(Vec::new()));
        assert_eq!(arguments_of("listen = \"a:1\"", &[]), Ok(vec!["--listen=a:1".to_owned()]));
    }

    #[test]
    fn the_command_line_wins_also_over_what_excludes_it() {
        assert_eq!(arguments_of("size = 5", &["--size", "6"]), Ok(Vec::new()));
        assert_eq!(arguments_of("one = \"x\"", &["--other", "y"]), Ok(Vec::new()));
        assert_eq!(arguments_of("other = \"x\"", &["--one", "y"]), Ok(Vec::new()));
    }

    #[test]
    fn a_wrong_file_says_where() {
        for (text, said) in [
            ("\nsize = ", "line 2"),
            ("size = 1.5", "point"),
            ("size = [1]", "a list"),
            ("public = 1", "true or false"),
            ("config = \"x\"", "command line only"),
            ("[size]\na = 1", "a table"),
        ] {
            let error = arguments_of(text, &[]).expect_err("wrong");
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
