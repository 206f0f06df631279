//! A parser's complaint, told to somebody who does not know YAML's grammar.

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use super::{MAX_DEPTH, Place, shorten};

/// Where and what, for a text that is not YAML.
pub(crate) fn explain(text: &str, error: &ScanError) -> (Place, String) {
    let mark = error.marker();
    let place = Place { line: mark.line(), column: mark.col() + 1 };
    let mut lines = text.lines().skip(mark.line().saturating_sub(1));
    let line = lines.next().unwrap_or_default();
    // A tab that follows a value is met on the value's line.
    for (number, line) in (mark.line()..).zip([line, lines.next().unwrap_or_default()]) {
        if let Some(column) = tab_in_indentation(line) {
            let message = "a tab in the indentation: YAML allows only spaces there";
            return (Place { line: number, column }, message.to_owned());
        }
    }
    if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
        return (place, too_deep());
    }
    let found = match line.trim() {
        "" => "the end of the file".to_owned(),
        line => format!("{:?}", shorten(line)),
    };
    (place, format!("not YAML at {found}: {}; {}", error.kind(), remedy(error.kind(), line)))
}

/// The message for lists and mappings nested too deep.
pub(crate) fn too_deep() -> String {
    format!("nested deeper than {MAX_DEPTH} levels, the most that is read: a bracket too many?")
}

/// The column of the first tab among the blanks that begin a line.
fn tab_in_indentation(line: &str) -> Option<usize> {
    let blanks = line.len() - line.trim_start_matches([' ', '\t']).len();
    line[..blanks].find('\t').map(|at| at + 1)
}

/// What would be right.
fn remedy(kind: &ErrorKind, line: &str) -> &'static str {
    match kind {
        _ if line.contains("${") && line.contains(['{', '[']) => {
            "inside [ ] or { } a ${VARIABLE} must be in quotes"
        }
        ErrorKind::UnclosedQuotedScalar
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::DocumentIndicatorInQuotedScalar => "close the quote",
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar => "write spaces for the tab",
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::InvalidColonPlacement => {
            "close the bracket here or above, and put commas between"
        }
        ErrorKind::UnknownAnchor
        | ErrorKind::MissingAnchorOrAliasName
        | ErrorKind::UnexpectedCharacter { .. } => {
            "a value that begins with a special character must be in quotes"
        }
        ErrorKind::MappingValueNotAllowed => {
            "indent the keys of one mapping equally, and put a value that contains ': ' in quotes"
        }
        _ => {
            "write `key: value`, one per line, those of one mapping indented by equally many spaces"
        }
    }
}
