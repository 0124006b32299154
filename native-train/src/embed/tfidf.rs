//! TF-IDF: the encoder that needs no download.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::sparse::SparseMatrix;

/// Most words that a term may have.
pub const MOST_WORDS: usize = 3;

/// Settings of the weighting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A term must stand in this many texts.
    pub min_texts: usize,
    /// Most words of a term: 1 takes words, 2 takes pairs of neighbours as well.
    pub max_words: usize,
}

/// The terms that count and their weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    columns: HashMap<String, u32>,
    /// Weight of each column's term, by rarity.
    idf: Vec<f32>,
    max_words: usize,
}

impl Vocabulary {
    /// Learns the terms of some texts.
    ///
    /// A word is a run of letters, digits and the marks on them, in normalisation form KC and lower
    /// case; in scripts that are written without blanks, each pair of neighbouring characters is one,
    /// and a character that stands alone. A term in every text tells nothing and is left out.
    pub fn fit<'a>(texts: impl Iterator<Item = &'a str>, settings: Settings) -> Self {
        // Of each term, by first appearance: texts that have it, and the last of them.
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut in_texts: Vec<(usize, usize)> = Vec::new();
        let mut total = 0;
        for text in texts {
            total += 1;
            for term in terms(text, settings.max_words) {
                let next = numbers.len();
                let number = *numbers.entry(term).or_insert(next);
                if number == in_texts.len() {
                    in_texts.push((0, 0));
                }
                let (count, last) = &mut in_texts[number];
                *count += usize::from(*last != total);
                *last = total;
            }
        }
        let mut idf = Vec::new();
        let kept: Vec<Option<u32>> = in_texts
            .iter()
            .map(|&(df, _)| {
                let keep = df >= settings.min_texts && df < total.max(2);
                keep.then(|| {
                    idf.push(1.0 + ((1 + total) as f32 / (1 + df) as f32).ln());
                    idf.len() as u32 - 1
                })
            })
            .collect();
        let columns =
            numbers.into_iter().filter_map(|(term, number)| Some((term, kept[number]?))).collect();
        Self { columns, idf, max_words: settings.max_words }
    }

    /// Puts a vocabulary together again: the terms of all columns, in order, and their weights.
    ///
    /// `None` where these do not fit, or a term stands there twice.
    pub fn from_parts<'a>(
        terms: impl Iterator<Item = &'a str>,
        idf: Vec<f32>,
        max_words: usize,
    ) -> Option<Self> {
        let terms: Vec<&str> = terms.collect();
        let columns: HashMap<String, u32> =
            terms.iter().map(|&term| term.to_owned()).zip(0..).collect();
        // Of terms that stand there twice, all columns but the last have none.
        let fits = terms.len() == idf.len() && columns.len() == idf.len();
        fits.then_some(Self { columns, idf, max_words })
    }

    /// Number of terms.
    pub fn len(&self) -> usize {
        self.idf.len()
    }

    /// Whether no term counts.
    pub fn is_empty(&self) -> bool {
        self.idf.is_empty()
    }

    /// The term of each column.
    pub fn terms(&self) -> Vec<&str> {
        let mut terms = vec![""; self.len()];
        self.columns.iter().for_each(|(term, &column)| terms[column as usize] = term);
        terms
    }

    /// The weight of each column's term.
    pub fn idf(&self) -> &[f32] {
        &self.idf
    }

    /// Most words of a term.
    pub fn max_words(&self) -> usize {
        self.max_words
    }

    /// A row per text, a column per term: (1 + ln tf) (1 + ln((1 + n) / (1 + df))), rows of
    /// length 1 (Salton and Buckley 1988, with smoothed idf). A text without a term has an empty
    /// row.
    pub fn weigh<'a>(&self, texts: impl Iterator<Item = &'a str>) -> SparseMatrix {
        SparseMatrix::from_rows(self.len(), texts.map(|text| self.row(text)))
    }

    fn row(&self, text: &str) -> Vec<(u32, f32)> {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for column in terms(text, self.max_words).iter().filter_map(|term| self.columns.get(term)) {
            *counts.entry(*column).or_default() += 1;
        }
        let weight = |count: u32, idf: f32| (1.0 + (count as f32).ln()) * idf;
        let mut row: Vec<(u32, f32)> = counts
            .into_iter()
            .map(|(column, count)| (column, weight(count, self.idf[column as usize])))
            .collect();
        // A map's order changes from run to run; sums of floats must not.
        row.sort_unstable_by_key(|&(column, _)| column);
        let norm = row.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
        row.iter_mut().for_each(|(_, weight)| *weight /= norm);
        row
    }
}

/// How words are found ([`Vocabulary::fit`]); another number where a text has other words than before.
pub(super) const WORDS: &str = "2";

/// The words of a text.
fn words(text: &str) -> Vec<String> {
    let in_word = |c: char| c.is_alphanumeric() || is_combining_mark(c);
    // What separates words does so before it is normalised, too: a trade mark sign is no "TM".
    let normal: String = text
        .chars()
        .filter(|&c| !is_ignorable(c))
        .map(|c| if in_word(c) { c } else { ' ' })
        .nfkc()
        .collect();
    let mut words = Vec::new();
    for run in normal.split(|c| !in_word(c)) {
        let run = run.trim_start_matches(is_combining_mark);
        // A character is a letter with its marks.
        let starts = run.char_indices().filter(|&(_, c)| !is_combining_mark(c)).map(|(at, _)| at);
        let ends = starts.clone().skip(1).chain([run.len()]);
        let characters: Vec<&str> = starts.zip(ends).map(|(start, end)| &run[start..end]).collect();
        for part in characters.chunk_by(|one, next| is_unspaced(one) == is_unspaced(next)) {
            match part {
                [first, _, ..] if is_unspaced(first) => {
                    words.extend(part.windows(2).map(|pair| pair.concat().to_lowercase()));
                }
                _ => words.push(part.concat().to_lowercase()),
            }
        }
    }
    words
}

/// Hyphens that may be, joiners, and selectors of a character's look: they change no word.
fn is_ignorable(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{e0100}'..='\u{e01ef}')
}

/// Whether a character is of a script that puts no blanks between words: Thai and Lao, Myanmar,
/// Khmer, Tai, Hiragana and Katakana, Han.
fn is_unspaced(character: &str) -> bool {
    character.chars().next().is_some_and(|c| {
        matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
            | '\u{1950}'..='\u{19ff}' | '\u{1a20}'..='\u{1aaf}' | '\u{3005}'..='\u{3007}'
            | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}' | '\u{a9e0}'..='\u{a9ff}' | '\u{aa60}'..='\u{aa7f}'
            | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
    })
}

/// The terms of a text.
fn terms(text: &str, max_words: usize) -> Vec<String> {
    let words = words(text);
    (1..=max_words).flat_map(|count| words.windows(count).map(|window| window.join(" "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row-major `[texts, terms]`.
    fn weights(texts: &[&str], settings: Settings) -> (usize, Vec<f32>) {
        let matrix = Vocabulary::fit(texts.iter().copied(), settings).weigh(texts.iter().copied());
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
    fn a_vocabulary_is_the_same_from_its_parts_and_weighs_texts_alone_as_among_others() {
        let texts = ["red wine glass", "red car", "glass of wine, of wine", "blue car"];
        let settings = Settings { min_texts: 2, max_words: 2 };
        let fitted = Vocabulary::fit(texts.into_iter(), settings);
        let parts = (fitted.terms().into_iter(), fitted.idf().to_vec(), fitted.max_words());
        assert_eq!(Vocabulary::from_parts(parts.0, parts.1, parts.2).unwrap(), fitted);
        assert!(Vocabulary::from_parts(["a", "a"].into_iter(), vec![1.0; 2], 1).is_none());
        assert!(Vocabulary::from_parts(["a", "a", "b"].into_iter(), vec![1.0; 2], 1).is_none());
        for text in texts {
            let alone = fitted.row(text);
            assert!(!alone.is_empty() && alone.is_sorted_by_key(|&(column, _)| column));
        }
        assert!(fitted.row("nothing that is known").is_empty());
    }

    #[test]
    fn words_keep_their_marks_however_they_are_written() {
        // Composed and not, of full width, as a ligature; what changes no word is left out.
        for text in ["Größe", "Gro\u{308}ße", "GRÖßE", "Grö\u{ad}ße"] {
            assert_eq!(terms(text, 1), ["größe"], "{text}");
        }
        assert_eq!(terms("ﬁne ＡＢＣ１２ m²", 1), ["fine", "abc12", "m2"]);
        assert_eq!(terms("हिन्दी किताब", 1), ["हिन्दी", "किताब"]);
        assert_eq!(terms("مِصْر", 1), ["مِصْر"]);
        assert_eq!(terms("می\u{200c}خواهم", 1), ["میخواهم"]);
        // Signs beside a word are no part of it.
        assert_eq!(terms("Lego™ \u{2764}\u{fe0f} Rock\u{b4}n \u{301}", 1), ["lego", "rock", "n"]);
    }

    #[test]
    fn without_blanks_each_pair_of_characters_is_a_word() {
        assert_eq!(terms("蓝色手机壳", 1), ["蓝色", "色手", "手机", "机壳"]);
        assert_eq!(terms("iPhone手机 壳", 1), ["iphone", "手机", "壳"]);
        assert_eq!(terms("ｺｰﾋｰと茶", 1), ["コー", "ーヒ", "ヒー", "ーと", "と茶"]);
        // Marks and vowels above and below go with their letter.
        assert_eq!(terms("ที่นี่", 1), ["ที่นี่"]);
        assert_eq!(terms("ที่นี่ดี", 1), ["ที่นี่", "นี่ดี"]);
        assert_eq!(terms("한국어 책", 1), ["한국어", "책"]);
    }

    #[test]
    fn terms_are_words_of_any_script_and_neighbours() {
        assert_eq!(terms("L'Été—ΣΑΣ 0.5-oz", 1), ["l", "été", "σας", "0", "5", "oz"]);
        assert_eq!(terms("a b c", 2), ["a", "b", "c", "a b", "b c"]);
        assert!(terms(" .,! ", 2).is_empty());
    }
}
