//! Tables for terminals.

/// Lines of cells as text: the first `left` columns are flush left, the others flush right.
pub fn columns<const N: usize>(lines: &[[String; N]], left: usize) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_flush_left_and_numbers_flush_right() {
        let line = |a: &str, b: &str| [a.to_string(), b.to_string()];
        assert_eq!(super::columns(&[line("x", "10"), line("long", "7")], 1), "x     10\nlong   7");
    }
}
