//! Fields of a request body, by exact name. Every refusal says which field, what is wrong and what would be right.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::ApiError;

/// A JSON object of the request and where it stands.
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

static NOTHING: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

impl<'a> Fields<'a> {
    /// The request's own object.
    pub fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, path: String::new() }
    }

    /// The name of a field as messages give it.
    pub fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_string() } else { format!("{}.{field}", self.path) }
    }

    /// A refusal of a field's value.
    pub fn refuse(&self, field: &str, reason: impl std::fmt::Display) -> ApiError {
        ApiError::param(&self.name(field), reason)
    }

    fn wrong_type(&self, field: &str, value: &Value, wanted: &str) -> ApiError {
        self.refuse(field, format!("{} was sent; {wanted} is needed", kind(value)))
    }

    /// A value; `null` is as good as absent.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|v| !v.is_null())
    }

    /// Refuses what differs from a known name only in case: it would otherwise be left out silently.
    pub fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        for key in self.map.keys().filter(|k| !known.contains(&k.as_str())) {
            if let Some(meant) = known.iter().find(|k| k.eq_ignore_ascii_case(key)) {
                return Err(self.refuse(key, format!("names are case-sensitive; write {meant}")));
            }
        }
        Ok(())
    }

    /// An object; an absent one is empty.
    pub fn object(&self, field: &str) -> Result<Fields<'a>, ApiError> {
        let map = match self.get(field) {
            None => &*NOTHING,
            Some(Value::Object(map)) => map,
            Some(other) => return Err(self.wrong_type(field, other, "an object")),
        };
        Ok(Fields { map, path: self.name(field) })
    }

    /// A string. An empty one is as good as absent: forms send them for what was left open.
    pub fn string(&self, field: &str) -> Result<Option<&'a str>, ApiError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(field, other, "a string")),
        }
    }

    /// A string that must be there.
    pub fn needed(&self, field: &str, what: &str) -> Result<&'a str, ApiError> {
        self.string(field)?.ok_or_else(|| self.refuse(field, format!("missing; give {what}")))
    }

    /// A string of at most `max` characters, without control characters.
    pub fn text(&self, field: &str, max: usize) -> Result<Option<&'a str>, ApiError> {
        let Some(text) = self.string(field)? else { return Ok(None) };
        let length = text.chars().count();
        if length > max {
            return Err(self.refuse(field, format!("{length} characters; at most {max} are allowed")));
        }
        if text.chars().any(char::is_control) {
            return Err(self.refuse(field, "control characters are not allowed; remove them"));
        }
        Ok(Some(text))
    }

    /// A boolean; false if absent.
    pub fn flag(&self, field: &str) -> Result<bool, ApiError> {
        match self.get(field) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong_type(field, other, "true or false")),
        }
    }

    /// A whole number in a range.
    pub fn integer(&self, field: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let (low, high) = (range.start(), range.end());
        let Value::Number(number) = value else {
            return Err(self.wrong_type(field, value, &format!("a whole number from {low} to {high}")));
        };
        let whole =
            number.as_u64().or_else(|| number.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64));
        match whole.and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.refuse(field, format!("{number} is not a whole number from {low} to {high}"))),
        }
    }

    /// A list of strings; empty if absent.
    pub fn strings(&self, field: &str, max: usize) -> Result<Vec<&'a str>, ApiError> {
        let list = match self.get(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) if list.len() <= max => list,
            Some(Value::Array(list)) => {
                return Err(self.refuse(field, format!("{} entries; at most {max} are allowed", list.len())));
            }
            Some(other) => return Err(self.wrong_type(field, other, "an array of strings")),
        };
        list.iter().map(|v| v.as_str().ok_or_else(|| self.wrong_type(field, v, "an array of strings"))).collect()
    }
}
