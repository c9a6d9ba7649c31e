//! Tables in Markdown.

use std::fmt::{Display, Write};

#[derive(Debug, Clone)]
pub struct Table {
    text: String,
}

impl Table {
    /// With a head: what the lines are, and what the columns are.
    pub fn new<Column: Display>(lines: &str, columns: impl IntoIterator<Item = Column>) -> Table {
        let columns: Vec<String> = columns.into_iter().map(|column| column.to_string()).collect();
        let rule = "--:|".repeat(columns.len());
        Table { text: format!("| {lines} | {} |\n|---|{rule}\n", columns.join(" | ")) }
    }

    /// With a head that is written out, the rule below it included.
    pub fn with_head(head: &str) -> Table {
        Table { text: head.to_owned() }
    }

    pub fn row<Cell: Display>(&mut self, name: &str, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<String> = cells.into_iter().map(|cell| cell.to_string()).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "| {name} | {} |", cells.join(" | "));
    }
}

impl Display for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}
