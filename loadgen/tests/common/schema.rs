//! The part of JSON Schema that the generator of our schema uses. The libraries that know all of
//! it bring some fifty crates; a keyword that is not known here fails the test that meets it.

use serde_json::{Map, Value};

/// Everything about `value` that `schema` forbids, each with its place.
pub(super) fn complaints(schema: &Value, value: &Value) -> Vec<String> {
    check(schema, schema, value, "")
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let Some(schema) = schema.as_object() else {
        let anything = *schema == Value::Bool(true);
        return if anything { Vec::new() } else { vec![format!("{at}: nothing may stand here")] };
    };
    let found = schema.iter().flat_map(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "$defs" | "title" | "description" | "format" | "default" => Vec::new(),
        "$ref" => {
            let pointer = rule.as_str().and_then(|rule| rule.strip_prefix('#')).unwrap();
            check(root, root.pointer(pointer).expect("a reference leads somewhere"), value, at)
        }
        "anyOf" | "oneOf" => {
            let choices = rule.as_array().unwrap().iter();
            let each: Vec<_> = choices.map(|choice| check(root, choice, value, at)).collect();
            let fits = each.iter().any(Vec::is_empty);
            if fits { Vec::new() } else { each.concat() }
        }
        "type" => {
            let types = rule.as_array().map_or(std::slice::from_ref(rule), Vec::as_slice);
            forbid(!types.iter().any(|name| is(name, value)), at, "is not of type", rule)
        }
        "const" => forbid(rule != value, at, "is not", rule),
        "enum" => forbid(!rule.as_array().unwrap().contains(value), at, "is none of", rule),
        "minimum" => forbid(
            value.as_f64().is_some_and(|v| Some(v) < rule.as_f64()),
            at,
            "is less than",
            rule,
        ),
        "maximum" => forbid(
            value.as_f64().is_some_and(|v| Some(v) > rule.as_f64()),
            at,
            "is more than",
            rule,
        ),
        "minItems" | "maxItems" => {
            let (len, bound) = (value.as_array().map(Vec::len), rule.as_u64().unwrap() as usize);
            let short = keyword == "minItems" && len.is_some_and(|len| len < bound);
            let long = keyword == "maxItems" && len.is_some_and(|len| len > bound);
            forbid(short || long, at, "has another length than", rule)
        }
        "required" => {
            let names = rule.as_array().unwrap().iter().filter_map(Value::as_str);
            names
                .filter(|name| value.get(name).is_none())
                .map(|n| format!("{at}/{n}: missing"))
                .collect()
        }
        "properties" | "additionalProperties" => fields(root, schema, keyword, value, at),
        "items" | "prefixItems" => {
            let items = value.as_array().into_iter().flatten().enumerate();
            let of = |n: usize| rule.as_array().map_or(Some(rule), |rules| rules.get(n));
            items
                .filter_map(|(n, item)| Some((n, item, of(n)?)))
                .flat_map(|(n, item, rule)| check(root, rule, item, &format!("{at}/{n}")))
                .collect()
        }
        other => panic!("the schema uses {other:?}, which this check does not know"),
    });
    found.collect()
}

/// Either the fields that are named, or all the others.
fn fields(
    root: &Value,
    schema: &Map<String, Value>,
    keyword: &str,
    value: &Value,
    at: &str,
) -> Vec<String> {
    let named = schema.get("properties").and_then(Value::as_object);
    let members = value.as_object().into_iter().flatten();
    members
        .filter_map(|(name, member)| {
            let own = named.and_then(|named| named.get(name));
            let rule = if keyword == "properties" {
                own
            } else {
                schema.get(keyword).filter(|_| own.is_none())
            };
            Some((name, member, rule?))
        })
        .flat_map(|(name, member, rule)| check(root, rule, member, &format!("{at}/{name}")))
        .collect()
}

fn forbid(wrong: bool, at: &str, what: &str, rule: &Value) -> Vec<String> {
    wrong.then(|| format!("{at}: {what} {rule}")).into_iter().collect()
}

fn is(name: &Value, value: &Value) -> bool {
    match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_u64() || value.is_i64(),
        _ => panic!("no type {name}"),
    }
}
