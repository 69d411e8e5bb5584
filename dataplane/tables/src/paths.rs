//! A map from paths that stays small: thousands of routes are looked up in turn, and each line of memory that they need is one that no cache has.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::{BuildHasher, Hasher};

/// Maps paths to small values. Its keys stand one behind the other in one piece of memory, and an entry of the table says where; it takes 8
/// bytes with a value of 4.
#[derive(Debug, Clone)]
pub(crate) struct PathMap<V> {
    entries: HashTable<Entry<V>>,
    /// Of each key its length, in [`LENGTH`] bytes, and its bytes.
    keys: Box<[u8]>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug, Clone, Copy)]
struct Entry<V> {
    /// Where its key begins.
    at: u32,
    value: V,
}

/// Bytes of a key's length.
const LENGTH: usize = 4;

impl<V: Copy> PathMap<V> {
    /// The value of this path.
    #[inline]
    pub(crate) fn get(&self, path: &[u8]) -> Option<V> {
        let hash = hash(&self.hasher, path);
        self.entries.find(hash, |entry| is_at(&self.keys, entry.at, path)).map(|entry| entry.value)
    }

    /// Whether it is empty.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<V> Default for PathMap<V> {
    fn default() -> Self {
        Self { entries: HashTable::new(), keys: Box::default(), hasher: DefaultHashBuilder::default() }
    }
}

impl<V: Copy> FromIterator<(Box<[u8]>, V)> for PathMap<V> {
    /// Of these pairs, among which no path stands twice.
    fn from_iter<I: IntoIterator<Item = (Box<[u8]>, V)>>(pairs: I) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut keys = Vec::new();
        let entries = pairs.into_iter().map(|(path, value)| {
            // Paths are shorter than 4 GiB, and so are all of a configuration together.
            let at = keys.len() as u32;
            keys.extend_from_slice(&(path.len() as u32).to_ne_bytes());
            keys.extend_from_slice(&path);
            (hash(&hasher, &path), Entry { at, value })
        });
        let hashed: Vec<_> = entries.collect();
        let mut entries = HashTable::with_capacity(hashed.len());
        for (hashed, entry) in hashed {
            entries.insert_unique(hashed, entry, |entry| hash(&hasher, key(&keys, entry.at)));
        }
        Self { entries, keys: keys.into(), hasher }
    }
}

/// Without the prefix that tells where a key among several ends.
#[inline]
fn hash(hasher: &DefaultHashBuilder, path: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(path);
    hasher.finish()
}

/// Whether the key that begins there is this path.
#[inline]
fn is_at(keys: &[u8], at: u32, path: &[u8]) -> bool {
    let Some((length, bytes)) = keys.get(at as usize..).and_then(<[u8]>::split_first_chunk::<LENGTH>) else {
        return false;
    };
    u32::from_ne_bytes(*length) as usize == path.len() && bytes.get(..path.len()).is_some_and(|bytes| bytes == path)
}

/// The key that begins there.
fn key(keys: &[u8], at: u32) -> &[u8] {
    let Some((length, bytes)) = keys.get(at as usize..).and_then(<[u8]>::split_first_chunk::<LENGTH>) else {
        return &[];
    };
    bytes.get(..u32::from_ne_bytes(*length) as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_value_and_no_other_has_one() {
        let path = |number: u32| -> Box<[u8]> {
            format!("/{}{number}", "p".repeat(number as usize % 300)).into_bytes().into()
        };
        let map: PathMap<u32> = (0..5_000).map(|number| (path(number), number)).collect();
        for number in 0..5_000 {
            let path = path(number);
            assert_eq!(map.get(&path), Some(number));
            assert_eq!(map.get(&[&path, &b"/"[..]].concat()), None);
            assert_eq!(map.get(&path[..path.len() - 1]).filter(|&other| other == number), None);
        }
        assert_eq!((map.get(b""), map.is_empty()), (None, false));
    }

    #[test]
    fn the_empty_path_is_a_path() {
        let map: PathMap<u32> = [(Box::default(), 7)].into_iter().collect();
        assert_eq!((map.get(b""), map.get(b"/")), (Some(7), None));
        assert_eq!(PathMap::<u32>::default().get(b""), None);
    }

    #[test]
    fn entries_stay_small() {
        assert_eq!(size_of::<Entry<u32>>(), 8);
    }
}
