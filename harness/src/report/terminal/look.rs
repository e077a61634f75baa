//! How a stream is written to: colour, width, and text that stays text.

use std::io::{self, IsTerminal};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// What a stream can show. By default it is no terminal.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub colour: bool,
    /// That of the terminal, where it is one.
    pub size: Option<Size>,
    /// Whether lines can be drawn again.
    pub redraws: bool,
}

impl Look {
    /// What standard output can show.
    pub fn of_stdout() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let terminal = io::stdout().is_terminal();
        let size = terminal_size::terminal_size_of(io::stdout())
            .map(|(width, height)| Size { columns: usize::from(width.0), rows: usize::from(height.0) });
        let dumb = variable("TERM").is_some_and(|term| term == "dumb");
        Self {
            colour: colour(terminal, variable),
            // A terminal of no width is one that does not tell its size.
            size: size.filter(|size| terminal && size.columns > 20),
            redraws: terminal && !dumb,
        }
    }

    /// Where lines can be drawn again, the size that they must fit.
    pub fn live(&self) -> Option<Size> {
        self.size.filter(|size| self.redraws && size.rows > 4)
    }

    /// Columns that a line may have; `None` where nobody looks at it.
    pub fn width(&self) -> Option<usize> {
        self.size.map(|size| size.columns)
    }

    /// Text in a colour, given as the numbers of its escape sequence.
    pub fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Whether to use colour: `NO_COLOR` (no-color.org) when it is not empty forbids it, then `CLICOLOR_FORCE` asks for it
/// anywhere and `CLICOLOR=0` forbids it (bixense.com/clicolors), and else a terminal that is not dumb has it.
fn colour(terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    terminal && set("CLICOLOR").is_none_or(|value| value != "0") && set("TERM").is_none_or(|term| term != "dumb")
}

/// Text in which control characters are pictures of themselves, so that a terminal obeys none. Tabs stay.
pub(super) fn legible(text: &str) -> String {
    let picture = |char: char| match char {
        '\t' => char,
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(char)).unwrap_or('�'),
        '\x7f' => '␡',
        '\u{80}'..='\u{9f}' => '�',
        // Marks that turn the direction of what stands behind them.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '�',
        other => other,
    };
    text.chars().map(picture).collect()
}

/// A line in as many lines as a width asks for. What goes on does so below the text: behind the label of a failure's
/// line, or behind the branches of a trace tree. Nothing is left out. Colours count for nothing.
pub(super) fn wrapped(line: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return line.to_owned() };
    if columns(line) <= width {
        return line.to_owned();
    }
    let indent = " ".repeat(hanging(line).min(width / 2));
    let mut done = String::new();
    let mut column = 0;
    let mut rest = line;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(piece_end(rest));
        let wide = columns(piece);
        if column + columns(piece.trim_end()) > width && column > indent.len() {
            let kept = done.trim_end().len();
            done.truncate(kept);
            done.push('\n');
            done.push_str(&indent);
            column = indent.len();
            // The space between two words is the end of the line.
            rest = rest.trim_start();
            continue;
        }
        if column + columns(piece.trim_end()) > width {
            // A word that is wider than a line is cut.
            let mut cut = 0;
            for char in piece.chars() {
                let wide = char.width().unwrap_or(0);
                if column + wide > width && column > indent.len() {
                    break;
                }
                column += wide;
                cut += char.len_utf8();
            }
            done.push_str(&rest[..cut]);
            rest = &rest[cut..];
            continue;
        }
        done.push_str(piece);
        column += wide;
        rest = behind;
    }
    done
}

/// Where a word with the space behind it ends.
fn piece_end(text: &str) -> usize {
    let lead = text.len() - text.trim_start().len();
    let word = text[lead..].find(' ').map_or(text.len(), |at| lead + at);
    word + (text[word..].len() - text[word..].trim_start_matches(' ').len())
}

/// How far what goes on with a line is indented.
fn hanging(line: &str) -> usize {
    let branches = line.chars().take_while(|char| " │├└─".contains(*char)).count();
    if branches > 2 {
        return branches + 2;
    }
    // `  closest    …`: two spaces, a label in eleven columns.
    let label = line.starts_with("  ") && bare(line).chars().skip(2).take(11).last() == Some(' ');
    if label { 13 } else { branches + 2 }
}

/// Width on a terminal, without colours.
pub(super) fn columns(text: &str) -> usize {
    bare(text).width()
}

fn bare(text: &str) -> String {
    let mut bare = String::new();
    let mut parts = text.split("\x1b[");
    bare.push_str(parts.next().unwrap_or_default());
    for part in parts {
        bare.push_str(part.split_once('m').map_or(part, |(_, behind)| behind));
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_terminal_unless_a_variable_decides() {
        let with = |terminal: bool, set: &[(&str, &str)]| {
            colour(terminal, |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(with(true, &[]) && !with(false, &[]));
        assert!(!with(true, &[("NO_COLOR", "1")]) && with(true, &[("NO_COLOR", "")]));
        assert!(with(false, &[("CLICOLOR_FORCE", "1")]) && !with(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!with(true, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]), "what forbids wins");
        assert!(!with(true, &[("CLICOLOR", "0")]) && !with(true, &[("TERM", "dumb")]));
    }

    fn lines(line: &str, width: usize) -> Vec<String> {
        let lines: Vec<String> = wrapped(line, Some(width)).lines().map(str::to_owned).collect();
        assert!(lines.iter().all(|line| columns(line) <= width), "{lines:#?}");
        lines
    }

    #[test]
    fn a_failures_line_goes_on_behind_its_label() {
        let found = lines("  closest    SERVER \"GET /files/{path}\" has another status", 40);
        assert_eq!(found, ["  closest    SERVER \"GET /files/{path}\"", "             has another status"]);
        let coloured = "  \x1b[36mclosest\x1b[0m    SERVER \"GET /files/{path}\" has another status";
        assert_eq!(lines(coloured, 40).len(), 2);
    }

    #[test]
    fn a_tree_fits_the_width_and_keeps_every_word() {
        let row = "             │  └─ INTERNAL Memory.ListObjectsV2  0.06 ms  4 log records";
        let found = lines(row, 48);
        assert_eq!(found[0], "             │  └─ INTERNAL Memory.ListObjectsV2");
        assert_eq!(found[1], "                     0.06 ms  4 log records");
        let deep = format!("             {}└─ INTERNAL x  0.06 ms", "│  ".repeat(30));
        assert!(lines(&deep, 60).concat().ends_with("0.06 ms"));
    }

    #[test]
    fn a_word_wider_than_the_line_is_cut_and_what_fits_is_left_alone() {
        let long = format!("  found      {}", "x".repeat(100));
        let found = lines(&long, 40);
        assert_eq!(found.concat().matches('x').count(), 100);
        assert!(found.len() <= 5, "{found:#?}");
        assert_eq!(wrapped("short", Some(40)), "short");
        assert_eq!(wrapped(&long, None), long);
        assert_eq!(lines(&"界".repeat(30), 21).concat().matches('界').count(), 30);
    }
}
