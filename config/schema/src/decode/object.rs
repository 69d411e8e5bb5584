//! Mappings with known fields, and lists.

use super::{At, Decoder, Path, quote, short};
use crate::located::Located;
use crate::yaml::{Entry, Node, Value};

/// A mapping whose fields are asked for one after the other; what nobody asked for is unknown.
pub(crate) struct Object<'a> {
    at: At<'a>,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

impl<'a> Object<'a> {
    /// Reports and returns `None` if `at` is no mapping.
    pub(crate) fn open(decoder: &mut Decoder<'_>, at: At<'a>) -> Option<Self> {
        match &at.node.value {
            Value::Mapping(entries) => Some(Object { at, entries, known: Vec::new() }),
            other => {
                wrong_type(decoder, at, other, "a mapping");
                None
            }
        }
    }

    /// The value of `name`, decoded. Absent (or null, as in Kubernetes) is `None`, and so is what is wrong.
    pub(crate) fn optional<T>(
        &mut self,
        decoder: &mut Decoder<'_>,
        name: &'static str,
        decode: impl FnOnce(&mut Decoder<'_>, At<'_>) -> Option<T>,
    ) -> Option<T> {
        let node = self.find(name)?;
        let path = Path::Field(self.at.path, name);
        decode(decoder, At { node, path: &path })
    }

    /// The same with a default.
    pub(crate) fn or<T>(
        &mut self,
        decoder: &mut Decoder<'_>,
        name: &'static str,
        default: T,
        decode: impl FnOnce(&mut Decoder<'_>, At<'_>) -> Option<T>,
    ) -> T {
        self.optional(decoder, name, decode).unwrap_or(default)
    }

    /// The same for a field that has to be there.
    pub(crate) fn required<T>(
        &mut self,
        decoder: &mut Decoder<'_>,
        name: &'static str,
        decode: impl FnOnce(&mut Decoder<'_>, At<'_>) -> Option<T>,
    ) -> Option<T> {
        self.missing(decoder, name);
        self.optional(decoder, name, decode)
    }

    /// A list, empty if it is absent.
    pub(crate) fn list<T>(
        &mut self,
        decoder: &mut Decoder<'_>,
        name: &'static str,
        item: impl FnMut(&mut Decoder<'_>, At<'_>) -> Option<T>,
    ) -> Vec<Located<T>> {
        self.or(decoder, name, Vec::new(), |decoder, at| list(decoder, at, item))
    }

    /// A list that has to be there with at least one item.
    pub(crate) fn required_list<T>(
        &mut self,
        decoder: &mut Decoder<'_>,
        name: &'static str,
        item: impl FnMut(&mut Decoder<'_>, At<'_>) -> Option<T>,
    ) -> Vec<Located<T>> {
        self.missing(decoder, name);
        self.or(decoder, name, Vec::new(), |decoder, at| {
            if matches!(&at.node.value, Value::Sequence(items) if items.is_empty()) {
                decoder.error(at, "is empty", "at least one item is needed");
            }
            list(decoder, at, item)
        })
    }

    /// Reports that the list `name` has no item.
    pub(crate) fn needs(&self, decoder: &mut Decoder<'_>, name: &str) {
        self.missing(decoder, name);
        if let Some(entry) = self.entries.iter().find(|entry| *entry.key == *name)
            && let Value::Sequence(items) = &entry.value.value
            && items.is_empty()
        {
            let place = decoder.place(entry.value.at, &Path::Field(self.at.path, name));
            decoder.found.hinted(&place, "is empty", "at least one item is needed");
        }
    }

    /// Whether `name` is given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| *entry.key == *name && !matches!(entry.value.value, Value::Null))
    }

    /// The mapping's place.
    pub(crate) fn at(&self) -> At<'a> {
        self.at
    }

    /// Reports `name` if it is there: the Gateway API or the design has it, this release has not.
    pub(crate) fn later(&mut self, decoder: &mut Decoder<'_>, name: &'static str) {
        self.optional(decoder, name, |decoder, at| {
            decoder.unsupported(at, name);
            Some(())
        });
    }

    /// Takes `name` without a look at it.
    pub(crate) fn ignored(&mut self, name: &'static str) {
        self.known.push(name);
    }

    /// Reports the fields that nobody asked for.
    pub(crate) fn close(self, decoder: &mut Decoder<'_>) {
        for entry in self.entries {
            if self.known.iter().any(|known| **known == *entry.key) {
                continue;
            }
            let path = Path::Field(self.at.path, &entry.key);
            let place = decoder.place(entry.at, &path);
            if decoder.found.is_full() {
                decoder.found.error(&place, "unknown field");
                continue;
            }
            let hint = match closest(&entry.key, self.known.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("the fields here are {}", self.known.join(", ")),
            };
            decoder.found.hinted(&place, "unknown field", hint);
        }
    }

    fn find(&mut self, name: &'static str) -> Option<&'a Node> {
        self.known.push(name);
        let entry = self.entries.iter().find(|entry| *entry.key == *name)?;
        (!matches!(entry.value.value, Value::Null)).then_some(&entry.value)
    }

    fn missing(&self, decoder: &mut Decoder<'_>, name: &str) {
        let entry = self.entries.iter().find(|entry| *entry.key == *name);
        if let Some(entry) = entry
            && !matches!(entry.value.value, Value::Null)
        {
            return;
        }
        let at = entry.map_or(self.at.node.at, |entry| entry.at);
        let path = Path::Field(self.at.path, name);
        let place = decoder.place(at, &path);
        decoder.found.error(&place, "is missing");
    }
}

/// Reports a list of more than `most` items, and cuts it.
pub(crate) fn at_most<T>(decoder: &mut Decoder<'_>, most: usize, items: &mut Vec<Located<T>>) {
    if let Some(first) = items.get(most) {
        let problem = "one more than there can be".to_owned();
        decoder.found.hinted(&first.at, problem, format!("at most {most} are taken"));
        items.truncate(most);
    }
}

/// Decodes every item; those that are wrong are reported and left out.
pub(crate) fn list<T>(
    decoder: &mut Decoder<'_>,
    at: At<'_>,
    mut item: impl FnMut(&mut Decoder<'_>, At<'_>) -> Option<T>,
) -> Option<Vec<Located<T>>> {
    let Value::Sequence(nodes) = &at.node.value else {
        wrong_type(decoder, at, &at.node.value, "a list");
        return None;
    };
    let mut items = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let path = Path::Item(at.path, index);
        let at = At { node, path: &path };
        items.extend(decoder.located(at, &mut item));
    }
    Some(items)
}

/// Reports a value of another type than `wanted`.
pub(crate) fn wrong_type(decoder: &mut Decoder<'_>, at: At<'_>, value: &Value, wanted: &str) {
    let (is, hint) = match value {
        Value::Invalid => return,
        Value::Null => ("null".to_owned(), None),
        Value::Bool(value) => (format!("the boolean {value}"), None),
        Value::Integer(text, _) => (format!("the integer {}", short(text)), Some(short(text))),
        Value::Float(text) => (format!("the number {}", short(text)), Some(short(text))),
        Value::String(text) => (format!("the string {}", quote(text)), None),
        Value::Sequence(_) => ("a list".to_owned(), None),
        Value::Mapping(_) => ("a mapping".to_owned(), None),
    };
    let hint = match (hint, wanted, value) {
        (Some(text), "a string", _) => Some(format!("in quotes it is a string: \"{text}\"")),
        (_, "a string", Value::Bool(value)) => Some(format!("in quotes it is a string: \"{value}\"")),
        (_, "a list", Value::String(_) | Value::Integer(..) | Value::Mapping(_)) => {
            Some("put the item into a list: [ … ], or a line with a dash in front".to_owned())
        }
        (_, "an integer", Value::String(text)) if text.parse::<i64>().is_ok() => {
            Some("leave out the quotes".to_owned())
        }
        _ => None,
    };
    let place = decoder.location(at);
    let problem = format!("must be {wanted}, is {is}");
    match hint {
        Some(hint) => decoder.found.hinted(&place, problem, hint),
        None => decoder.found.error(&place, problem),
    }
}

/// The name out of `names` that was probably meant by `given`: the same but for case, or at most a
/// third of its letters away.
pub(crate) fn closest<'n>(given: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const LONGEST: usize = 64;
    if given.len() > LONGEST {
        return None;
    }
    let lower = given.to_lowercase();
    names
        .map(|name| (distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= name.len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein's distance, where two neighbours that changed places count as one change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // For each end of `b`, the distance of it to the part of `a` so far, and that of the rounds before.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut before = row.clone();
    let mut last = None;
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX);
            let mut best = (at(&row, j) + usize::from(x != *y)).min(at(&row, j + 1) + 1).min(left + 1);
            if let Some(before_j) = j.checked_sub(1)
                && last == Some(*y)
                && b.get(before_j) == Some(&x)
            {
                best = best.min(at(&before, before_j) + 1);
            }
            next.push(best);
            left = best;
        }
        before = std::mem::replace(&mut row, next);
        last = Some(x);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_meant() {
        let names = || ["matches", "backendRefs", "timeouts", "name"].into_iter();
        assert_eq!(closest("backendrefs", names()), Some("backendRefs"));
        assert_eq!(closest("match", names()), Some("matches"));
        assert_eq!(closest("timeout", names()), Some("timeouts"));
        assert_eq!(closest("filters", names()), None);
        assert_eq!(closest("x", names()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("spce", "spec"), 1);
    }
}
