//! How a head is copied from one side to the other: in runs of whole lines, with what has to be looked at between them.
//!
//! The parser looks at each field once, and marks the few lines that do not simply pass; the encoders copy what lies
//! between the marks. A line is within a run only if it is exactly what an encoder would write, so that nothing of how
//! the sender spelt it gets through.

use arrayvec::ArrayVec;
use memchr::memchr;

use super::encode::FieldChanges;
use super::fields::{Field, Fields, FieldsIter, Known, MAX_CONNECTION_OPTIONS, known, members};

/// How many marks a head has room for: Host, Connection, a framing field and what a proxy before us adds, and some more.
/// From the first line that finds no room, the encoders look at each line again.
const MAX_MARKS: usize = 8;

/// The lines of a head.
#[derive(Clone, Default)]
pub(super) struct Layout<'b> {
    /// The head without its empty line.
    bytes: &'b [u8],
    /// Where the field lines begin.
    section: usize,
    /// Where the line of the Host field ends, if that is the first one, and written as it is made here.
    host: Option<usize>,
    marks: ArrayVec<Mark, MAX_MARKS>,
    /// From here on, lines are not marked.
    unmarked: Option<usize>,
}

/// A line that is within no run.
#[derive(Clone, Copy)]
struct Mark {
    start: u16,
    end: u16,
    /// `None`: an ordinary field that was written in another way than ours.
    known: Option<Known>,
}

impl<'b> Layout<'b> {
    pub(super) fn new(bytes: &'b [u8], section: usize) -> Self {
        Self { bytes, section, ..Self::default() }
    }

    /// The field lines, of which there are `count`.
    pub(super) fn fields(&self, count: usize) -> Fields<'b> {
        Fields::trusted(self.bytes.get(self.section..).unwrap_or_default(), count)
    }

    /// The first line, without its CRLF.
    pub(super) fn first_line(&self) -> &'b [u8] {
        self.bytes.get(..self.section.wrapping_sub(2)).unwrap_or_default()
    }

    /// The first field is Host, and its line, which ends here, is what would be made of it.
    #[inline]
    pub(super) fn has_host(&mut self, end: usize) {
        self.host = Some(end);
    }

    /// Whether the first field is Host, and written as it is made here.
    #[inline]
    pub(super) fn begins_with_host(&self) -> bool {
        self.host.is_some()
    }

    /// Keeps a line out of the runs.
    #[inline]
    pub(super) fn mark(&mut self, start: usize, end: usize, known: Option<Known>) {
        if self.unmarked.is_some() {
            return;
        }
        let mark = u16::try_from(end).map(|end| Mark { start: start as u16, end, known });
        if mark.is_err() || mark.is_ok_and(|mark| self.marks.try_push(mark).is_err()) {
            self.unmarked = Some(start);
        }
    }

    /// Which lines are copied cannot be said by a line alone.
    #[cold]
    pub(super) fn forget_marks(&mut self) {
        self.marks.clear();
        self.unmarked = Some(self.behind_host());
    }

    /// Where copying begins if the first line and a Host at the front are written anew.
    pub(super) fn behind_host(&self) -> usize {
        self.host.unwrap_or(self.section)
    }

    /// Where copying begins if only the first line is written anew.
    pub(super) fn behind_first_line(&self) -> usize {
        self.section
    }

    /// Copies the lines from `from` on, and of the known fields those that `keeps` wants; none that Connection names.
    #[inline]
    pub(super) fn copy(&self, from: usize, out: &mut Vec<u8>, mut keeps: impl FnMut(Known) -> bool) {
        let mut at = from;
        for mark in &self.marks {
            out.extend_from_slice(self.bytes.get(at..mark.start.into()).unwrap_or_default());
            at = mark.end.into();
            if mark.known.is_none_or(&mut keeps) {
                respell(out, self.line(mark));
            }
        }
        let unmarked = self.unmarked.unwrap_or(self.bytes.len());
        out.extend_from_slice(self.bytes.get(at..unmarked).unwrap_or_default());
        if unmarked < self.bytes.len() {
            self.copy_unmarked(unmarked, out, keeps);
        }
    }

    #[cold]
    fn copy_unmarked(&self, from: usize, out: &mut Vec<u8>, mut keeps: impl FnMut(Known) -> bool) {
        let nominated = Nominated::of(&self.fields(0));
        for Field { name, value } in self.lines(from) {
            if !nominated.contains(name) && known(name).is_none_or(&mut keeps) {
                field(out, name, value);
            }
        }
    }

    /// The same without the fields that `changes` takes out.
    #[inline(never)]
    pub(super) fn copy_changed(
        &self,
        from: usize,
        out: &mut Vec<u8>,
        changes: &FieldChanges<'_>,
        mut keeps: impl FnMut(Known) -> bool,
    ) {
        if changes.strip.is_empty() {
            return self.copy(from, out, keeps);
        }
        let letters = changes.letters();
        let strips = |line: &[u8]| changes.strips_line(letters, line);
        let mut at = from;
        for mark in &self.marks {
            copy_lines(self.bytes.get(at..mark.start.into()).unwrap_or_default(), out, strips);
            at = mark.end.into();
            if mark.known.is_none_or(&mut keeps) && !strips(self.line(mark)) {
                respell(out, self.line(mark));
            }
        }
        let unmarked = self.unmarked.unwrap_or(self.bytes.len());
        copy_lines(self.bytes.get(at..unmarked).unwrap_or_default(), out, strips);
        if unmarked < self.bytes.len() {
            let nominated = Nominated::of(&self.fields(0));
            for Field { name, value } in self.lines(unmarked) {
                if !nominated.contains(name) && known(name).is_none_or(&mut keeps) && !changes.strips(name) {
                    field(out, name, value);
                }
            }
        }
    }

    /// The values of all fields of that kind, in the order sent.
    pub(super) fn values(&self, of: Known) -> impl Iterator<Item = &'b [u8]> {
        let marked = self.marks.iter().filter(move |mark| mark.known == Some(of));
        let unmarked = self.lines(self.unmarked.unwrap_or(self.bytes.len()));
        marked
            .filter_map(|mark| Field::of(self.line(mark)))
            .chain(unmarked.filter(move |field| known(field.name) == Some(of)))
            .map(|field| field.value)
    }

    fn line(&self, mark: &Mark) -> &'b [u8] {
        self.bytes.get(mark.start.into()..mark.end.into()).unwrap_or_default()
    }

    fn lines(&self, from: usize) -> FieldsIter<'b> {
        Fields::trusted(self.bytes.get(from..).unwrap_or_default(), 0).iter()
    }
}

impl core::fmt::Debug for Layout<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let marks = self.marks.iter().map(|mark| (mark.start, mark.known));
        f.debug_list().entries(marks).entries(self.unmarked).finish()
    }
}

/// Appends the lines of a run but those that `strips` names, in as few pieces as there are.
fn copy_lines(run: &[u8], out: &mut Vec<u8>, strips: impl Fn(&[u8]) -> bool) {
    let (mut from, mut at) = (0, 0);
    while let Some(len) = run.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        let end = at + len + 1;
        if strips(run.get(at..end).unwrap_or_default()) {
            out.extend_from_slice(run.get(from..at).unwrap_or_default());
            from = end;
        }
        at = end;
    }
    out.extend_from_slice(run.get(from..).unwrap_or_default());
}

/// Appends a field line.
#[inline]
pub(super) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a line as it is written here.
#[inline(never)]
fn respell(out: &mut Vec<u8>, line: &[u8]) {
    if let Some(Field { name, value }) = Field::of(line) {
        field(out, name, value);
    }
}

/// The field names that a message's Connection fields name (RFC 9110 §7.6.1).
struct Nominated<'b>(ArrayVec<&'b [u8], MAX_CONNECTION_OPTIONS>);

impl<'b> Nominated<'b> {
    fn of(fields: &Fields<'b>) -> Self {
        let mut names = ArrayVec::new();
        let options = fields.iter().filter(|field| known(field.name) == Some(Known::Connection));
        for name in options.flat_map(|field| members(field.value)) {
            // The parser refused a head with more.
            let _ = names.try_push(name);
        }
        Self(names)
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.0.iter().any(|option| option.eq_ignore_ascii_case(name))
    }
}
