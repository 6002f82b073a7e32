//! The known word that a mistyped one was probably meant to be.

/// The candidate with the fewest edits from `typed`, unless that would change most of it.
pub(crate) fn nearest<'a>(typed: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let most_edits = typed.chars().count().div_ceil(2);
    candidates
        .iter()
        .map(|candidate| (edits(&typed.to_lowercase(), &candidate.to_lowercase()), *candidate))
        .filter(|(edits, _)| *edits <= most_edits)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance with one row (Wagner and Fischer, 1974).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, left) in from.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_insertions_deletions_and_replacements() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", "abc"), 0);
    }

    #[test]
    fn a_word_unlike_all_candidates_has_no_nearest() {
        assert_eq!(nearest("colour", &["memory", "color", "io"]), Some("color"));
        assert_eq!(nearest("xyzzy", &["memory", "color", "io"]), None);
    }
}
