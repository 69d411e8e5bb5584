//! A wire in virtual time: the second implementation of [`crate::Lane`].
