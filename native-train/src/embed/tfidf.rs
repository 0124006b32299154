//! TF-IDF: the encoder that needs no download.

use std::collections::HashMap;

use super::sparse::SparseMatrix;

/// Settings of the weighting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A term must stand in this many texts.
    pub min_texts: usize,
    /// Most words of a term: 1 takes words, 2 takes pairs of neighbours as well.
    pub max_words: usize,
}

/// A row per text, a column per term: (1 + ln tf) (1 + ln((1 + n) / (1 + df))), rows of length 1
/// (Salton and Buckley 1988, with smoothed idf).
///
/// Terms are runs of letters and digits in lower case. A term in every text tells nothing and
/// is left out. A text without a term has an empty row.
pub fn weigh<'a>(texts: impl Iterator<Item = &'a str>, settings: Settings) -> SparseMatrix {
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut in_texts: Vec<u32> = Vec::new();
    let mut counts: Vec<HashMap<u32, u32>> = Vec::new();
    for text in texts {
        let mut of_text = HashMap::new();
        for term in terms(text, settings.max_words) {
            let next = numbers.len() as u32;
            let number = *numbers.entry(term).or_insert(next);
            if number == next && in_texts.len() == next as usize {
                in_texts.push(0);
            }
            let count = of_text.entry(number).or_insert(0);
            if *count == 0 {
                in_texts[number as usize] += 1;
            }
            *count += 1;
        }
        counts.push(of_text);
    }
    let total = counts.len();
    let mut columns = 0u32;
    let kept: Vec<Option<(u32, f32)>> = in_texts
        .iter()
        .map(|&df| {
            let keep = df as usize >= settings.min_texts && (df as usize) < total.max(2);
            keep.then(|| {
                columns += 1;
                let idf = 1.0 + ((1 + total) as f32 / (1 + df) as f32).ln();
                (columns - 1, idf)
            })
        })
        .collect();
    let rows = counts.into_iter().map(|of_text| {
        let mut row: Vec<(u32, f32)> = of_text
            .into_iter()
            .filter_map(|(term, count)| {
                let (column, idf) = kept[term as usize]?;
                Some((column, (1.0 + (count as f32).ln()) * idf))
            })
            .collect();
        // A map's order changes from run to run; sums of floats must not.
        row.sort_unstable_by_key(|&(column, _)| column);
        let norm = row.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
        row.iter_mut().for_each(|(_, weight)| *weight /= norm);
        row
    });
    SparseMatrix::from_rows(columns as usize, rows)
}

/// The terms of a text.
fn terms(text: &str, max_words: usize) -> Vec<String> {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    (1..=max_words).flat_map(|count| words.windows(count).map(|window| window.join(" "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row-major `[texts, terms]`.
    fn weights(texts: &[&str], settings: Settings) -> (usize, Vec<f32>) {
        let matrix = weigh(texts.iter().copied(), settings);
        let columns = matrix.columns();
        let mut identity = vec![0.0; columns * columns];
        (0..columns).for_each(|at| identity[at * columns + at] = 1.0);
        (columns, matrix.times(&identity, columns))
    }

    #[test]
    fn weights_follow_the_formula() {
        let settings = Settings { min_texts: 1, max_words: 1 };
        let (columns, found) = weights(&["Red, red WINE", "red car", "a car"], settings);
        assert_eq!(columns, 4, "red, wine, car, a");
        let idf = |df: f32| 1.0 + (4.0f32 / (1.0 + df)).ln();
        let (red, wine) = ((1.0 + 2.0f32.ln()) * idf(2.0), idf(1.0));
        let norm = red.hypot(wine);
        let expected = [red / norm, wine / norm, 0.0, 0.0];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
        for row in found.chunks(columns) {
            assert!((row.iter().map(|w| w * w).sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn rare_and_universal_terms_are_left_out() {
        let settings = Settings { min_texts: 2, max_words: 1 };
        let (columns, found) = weights(&["all big", "all big", "all", "once all"], settings);
        assert_eq!(columns, 1, "only \"big\" is neither rare nor everywhere");
        assert_eq!(found, [1.0, 1.0, 0.0, 0.0], "texts without a term have empty rows");
    }

    #[test]
    fn terms_are_words_of_any_script_and_neighbours() {
        assert_eq!(terms("L'Été—ΣΑΣ 0.5-oz", 1), ["l", "été", "σας", "0", "5", "oz"]);
        assert_eq!(terms("a b c", 2), ["a", "b", "c", "a b", "b c"]);
        assert!(terms(" .,! ", 2).is_empty());
    }
}
