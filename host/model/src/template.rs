//! wip
/// wip
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    marked: String,
    mark: Option<char>,
}
impl Rendered {
    pub(crate) fn marked(&self) -> &str {
        &self.marked
    }
    pub(crate) fn mark(&self) -> Option<char> {
        self.mark
    }
}
