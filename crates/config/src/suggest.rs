//! "Did you mean": the known word nearest to a misspelt one.

/// A hint lists at most so many words.
const MAX_LISTED: usize = 15;

/// Edit distance with transpositions of neighbours as one edit (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The candidate nearest to `word`, when it is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let letters: Vec<char> = word.to_lowercase().chars().collect();
    let allowed = (letters.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|c| c.len() <= 128)
        .map(|c| {
            let other: Vec<char> = c.to_lowercase().chars().collect();
            let near = distance(&letters, &other);
            // A whole word inside the other is as good as two edits: `key` for `keys_of`.
            let part = letters.len() > 3 && (c.contains(word) || word.contains(c) && c.len() > 3);
            (if part { near.min(2.min(allowed)) } else { near }, c)
        })
        .filter(|(near, _)| *near <= allowed)
        .min_by_key(|(near, _)| *near)
        .map(|(_, c)| c)
}

/// A hint: what was probably meant, and else what there is.
pub(crate) fn hint<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
    there_is: &str,
) -> String {
    if let Some(near) = nearest(word, candidates.clone()) {
        return format!("did you mean `{near}`?");
    }
    let all: Vec<&str> = candidates.into_iter().take(MAX_LISTED + 1).collect();
    match all.as_slice() {
        [] => format!("{there_is}: none"),
        _ if all.len() > MAX_LISTED => format!("{there_is}: {}, ...", all[..MAX_LISTED].join(", ")),
        _ => format!("{there_is}: {}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_meant_and_a_far_one_is_not() {
        let known = ["schedule", "location", "pattern", "format"];
        assert_eq!(nearest("shcedule", known), Some("schedule"));
        assert_eq!(nearest("locations", known), Some("location"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
