//! A run as a static site: the built demo page with the run's model, items and figures beside it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};
use tigret_infer::{Bundle, WeightFormat};

use crate::data::PREPARE_HINT;
use crate::data::lines::{for_each_line, object};
use crate::data::new_items::for_each_new_item;
use crate::data::template::TextRecipe;
use crate::destination::check_place;
use crate::embed::encoder::Ready;
use crate::error::{Result, TrainError};
use crate::evaluate::{Evaluation, Split};
use crate::export::{bundle_of_run, check_out, with_tokenizer_of_run, write_bundle};
use crate::files::{read_json, remove_if_there, write_atomically, write_json, write_line};
use crate::metrics::Metrics;
use crate::run_dir::{RunDir, lies_in};

/// The folder beside the page that holds what belongs to a run.
const MODEL: &str = "model";

/// What names the page's other files, and so is put after them.
const LAST: [&str; 2] = ["sw.js", "index.html"];

/// The fields of an item that the page shows (`web/demo/items.ts`). Others, such as a cost, are nobody's
/// business who visits it, and do not go there.
const SHOWN: [&str; 11] = [
    "id",
    "title",
    "keywords",
    "author",
    "brand",
    "year",
    "subjects",
    "categories",
    "category",
    "genres",
    "genre",
];

/// What was laid beside the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Laid {
    /// Bytes of the bundle.
    pub(crate) bytes: usize,
    /// Items of the catalogue.
    pub(crate) items: usize,
    /// New items, which the model has not seen.
    pub(crate) new_items: usize,
}

/// What belongs to a run on its site, before anything is written.
#[derive(Debug)]
pub(crate) struct Content {
    bundle: Bundle,
    /// The lines of `items.jsonl`.
    items: Vec<u8>,
    about: Value,
    new_items: Option<Vec<Map<String, Value>>>,
}

/// Refuses a page that is none, and an `out` that holds another page, a model that is no bundle of a
/// site, or the run itself.
///
/// # Errors
/// [`TrainError::File`].
pub(crate) fn check_site(page: &Path, out: &Path, run: &RunDir) -> Result<()> {
    check_page(page, out)?;
    run.check_no_artefact(&bundle_of_site(out))?;
    check_out(&bundle_of_site(out))?;
    check_place(&bundle_of_site(out))
}

fn bundle_of_site(out: &Path) -> PathBuf {
    out.join(MODEL).join("model.safetensors")
}

fn check_page(page: &Path, out: &Path) -> Result<()> {
    if !page.join("index.html").is_file() {
        return Err(TrainError::file(
            page,
            "has no index.html: it is no built page; `cargo xtask demo` builds one, into \
             web/demo-dist",
        ));
    }
    if lies_in(out, page) && !lies_in(page, out) {
        return Err(TrainError::file(
            out,
            "lies in the page that is to be copied there; choose a folder outside of it",
        ));
    }
    let (own, there) = (page.join("index.html"), out.join("index.html"));
    let is_site = bundle_of_site(out).exists();
    if !is_site && there.exists() && fs::read(&own).ok() != fs::read(&there).ok() {
        return Err(TrainError::file(
            there,
            "is there already and no page of Tigret; remove it, or choose another folder",
        ));
    }
    Ok(())
}

/// Copies a built page to `out`, unless that is where it lies; an older run's model stays until
/// [`Content::lay`] replaces it.
///
/// # Errors
/// [`TrainError::File`] where there is no page, or a file cannot be read or written.
pub(crate) fn copy_page(page: &Path, out: &Path) -> Result<()> {
    check_page(page, out)?;
    if lies_in(out, page) {
        return Ok(());
    }
    copy_folder(page, out, &|name| name != MODEL && !LAST.contains(&name))?;
    for name in LAST.iter().filter(|name| page.join(name).is_file()) {
        copy_file(&page.join(name), &out.join(name))?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    fs::create_dir_all(to).map_err(|e| TrainError::file(to, e))?;
    for entry in fs::read_dir(from).map_err(|e| TrainError::file(from, e))? {
        let entry = entry.map_err(|e| TrainError::file(from, e))?;
        if !wanted(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target, &|_| true)?;
        } else {
            copy_file(&source, &target)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).map_err(|e| TrainError::file(from, e))?;
    write_atomically(to, |file| file.write_all(&bytes))
}

/// A run's model, items, figures and new items. The bundle carries the tokenizer, if the run has
/// one. New items (a JSONL file) keep the vector of their field `embedding`; `encode` makes rows of
/// content vectors of the others' texts.
///
/// # Errors
/// [`TrainError::File`] for artefacts that are missing or wrong, [`TrainError::Line`] for a new item
/// without an id, with a wrong vector or one that the catalogue has, and what `encode` reports.
pub(crate) fn content_of(
    run: &RunDir,
    format: WeightFormat,
    new_items: Option<&Path>,
    encode: impl FnOnce(&[&str]) -> Result<Vec<Vec<f32>>>,
    recipe: Option<&TextRecipe>,
) -> Result<Content> {
    let mut bundle = bundle_of_run(run, format)?;
    if run.tokenizer().is_file() {
        bundle = with_tokenizer_of_run(bundle, run)?;
    }
    let width = bundle.quantizer().map(|quantizer| quantizer.config().embedding());
    let items = shown_items(run)?;
    let about = about(run)?;
    let known = |id: &str| bundle.catalog.rank_of(id).is_some();
    let new_items =
        new_items.map(|path| read_new_items(path, width, &known, encode, recipe)).transpose()?;
    Ok(Content { bundle, items, about, new_items })
}

impl Content {
    /// Lays all beside the page in `out`, in the place of another run's.
    ///
    /// # Errors
    /// [`TrainError::File`] where a file cannot be written.
    pub(crate) fn lay(&self, out: &Path) -> Result<Laid> {
        let folder = out.join(MODEL);
        let bytes = write_bundle(&self.bundle, &bundle_of_site(out))?;
        write_atomically(&folder.join("items.jsonl"), |file| file.write_all(&self.items))?;
        write_json(&folder.join("about.json"), &self.about)?;
        let new_items = folder.join("new.jsonl");
        match &self.new_items {
            Some(items) => write_atomically(&new_items, |file| {
                items.iter().try_for_each(|item| write_line(file, item))
            })?,
            // Those of another run, if there are any.
            None => remove_if_there(&new_items)?,
        }
        let laid = self.new_items.as_ref().map_or(0, Vec::len);
        Ok(Laid { bytes, items: self.bundle.catalog.len(), new_items: laid })
    }
}

/// The lines of a run's items with what the page shows of them.
fn shown_items(run: &RunDir) -> Result<Vec<u8>> {
    let path = run.items();
    let mut lines = Vec::new();
    for_each_line(&path, PREPARE_HINT, |line, text| {
        let mut item: Map<String, Value> =
            object(text).map_err(|reason| TrainError::line(&path, line, reason))?;
        item.retain(|field, _| SHOWN.contains(&field.as_str()));
        write_line(&mut lines, &item).map_err(|e| TrainError::line(&path, line, e.to_string()))
    })?;
    Ok(lines)
}

fn read_new_items(
    path: &Path,
    width: Option<usize>,
    known: &dyn Fn(&str) -> bool,
    encode: impl FnOnce(&[&str]) -> Result<Vec<Vec<f32>>>,
    recipe: Option<&TextRecipe>,
) -> Result<Vec<Map<String, Value>>> {
    let mut items: Vec<Map<String, Value>> = Vec::new();
    let (mut without, mut texts): (Vec<usize>, Vec<String>) = (Vec::new(), Vec::new());
    for_each_new_item(path, |item| {
        if known(&item.id) {
            let id = &item.id;
            return Err(item.wrong(format!(
                "item \"{id}\" is in the catalogue already, so it is not new; leave it out"
            )));
        }
        // Without a tokenizer nothing says how long a vector is, and none is of use.
        if width.map_or(Ok(None), |width| item.embedding(width))?.is_none() {
            without.push(items.len());
            texts.push(item.text_to_encode(recipe)?);
        }
        let mut fields = item.fields;
        fields.retain(|field, _| SHOWN.contains(&field.as_str()) || field == "embedding");
        items.push(fields);
        Ok(())
    })?;
    if !texts.is_empty() {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for (item, row) in without.into_iter().zip(encode(&texts)?) {
            items[item].insert("embedding".into(), json!(row));
        }
    }
    Ok(items)
}

/// Rows of content vectors by a run's encoder.
///
/// # Errors
/// What the encoder reports.
pub(crate) fn rows_by(encoder: &Ready, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
    let vectors = encoder.encode(texts, &|| false)?;
    Ok(vectors.data.chunks_exact(vectors.dimensions).map(<[f32]>::to_vec).collect())
}

/// What the page says of the model: figures of the test items, as the optimum is. A run whose model
/// was not evaluated on them has none.
fn about(run: &RunDir) -> Result<Value> {
    let dataset: Value = read_json(&run.dataset(), PREPARE_HINT)?;
    let evaluation = read_json::<Evaluation>(&run.evaluation(), "").ok();
    let oracle = read_json::<Metrics>(&run.oracle(), "").ok();
    // Without those of a model that may have seen what it was to find.
    let of_test = evaluation.filter(|figures| {
        figures.settings.protocol().split == Split::Test && !figures.trained_on_other_sequences
    });
    let recall_10 = |metrics: Metrics| metrics.recall_10;
    Ok(json!({
        "name": dataset["source"],
        "simulated": dataset["simulated"],
        "items": dataset["items"],
        "users": dataset["users"],
        "recall@10": of_test.as_ref().and_then(|figures| figures.model).map(recall_10),
        "popularity recall@10": of_test.map(|figures| figures.popularity).map(recall_10),
        "optimum recall@10": oracle.map(recall_10),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::figures::testing::evaluation;

    #[test]
    fn the_page_is_told_the_figures_that_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::named(folder.path());
        assert!(about(&run).unwrap_err().to_string().contains("tigret prepare"));
        let dataset = json!({"source": "classics", "simulated": true, "items": 12, "users": 3});
        write_json(&run.dataset(), &dataset).unwrap();
        assert_eq!(about(&run).unwrap()["recall@10"], Value::Null);
        let optimum = Metrics { recall_10: 0.5, ..Metrics::default() };
        write_json(&run.oracle(), &optimum).unwrap();
        let figures = ["recall@10", "popularity recall@10", "optimum recall@10"];
        // The optimum is one of the test items: figures of others do not stand beside it.
        for (split, expected) in [
            (Split::Test, [Some(0.4), Some(0.1), Some(0.5)]),
            (Split::Validation, [None, None, Some(0.5)]),
        ] {
            let mut evaluation = evaluation(split, 0.4, 0.1);
            write_json(&run.evaluation(), &evaluation).unwrap();
            let told = about(&run).unwrap();
            assert_eq!((&told["name"], &told["items"]), (&json!("classics"), &json!(12)));
            assert_eq!(figures.map(|name| told[name].as_f64()), expected, "{split:?}");
            evaluation.trained_on_other_sequences = true;
            write_json(&run.evaluation(), &evaluation).unwrap();
            assert_eq!(about(&run).unwrap()["recall@10"], Value::Null, "{split:?}");
        }
    }

    #[test]
    fn a_site_has_of_the_items_what_its_page_shows() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::named(folder.path());
        let lines = "{\"id\": \"a\", \"text\": \"Tea.\", \"title\": \"Tea\", \"cost\": 3}\n\
                     {\"id\": \"b\", \"text\": \"\", \"category\": \"Pots > Iron\"}\n";
        fs::write(run.items(), lines).unwrap();
        let shown = "{\"id\":\"a\",\"title\":\"Tea\"}\n\
                     {\"category\":\"Pots > Iron\",\"id\":\"b\"}\n";
        assert_eq!(String::from_utf8(shown_items(&run).unwrap()).unwrap(), shown);
    }

    #[test]
    fn new_items_keep_vectors_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.jsonl");
        let read = |lines: &str, width, encode: &dyn Fn(&[&str]) -> Vec<Vec<f32>>| {
            fs::write(&path, lines).unwrap();
            read_new_items(&path, width, &|id| id == "old", |texts| Ok(encode(texts)), None)
        };
        let own = r#"{"id": "a", "embedding": [0.5, -1]}"#;
        let items = read(own, Some(2), &|_| panic!("needs no encoder")).unwrap();
        assert_eq!(json!(items), json!([{"id": "a", "embedding": [0.5, -1]}]));

        let both = format!("{{\"id\": \"b\", \"text\": \"of b\"}}\n{own}\n");
        let encode = |texts: &[&str]| {
            assert_eq!(texts, ["of b"]);
            vec![vec![2.0, 3.0]]
        };
        let items = read(&both, Some(2), &encode).unwrap();
        let embeddings: Vec<&Value> = items.iter().map(|item| &item["embedding"]).collect();
        assert_eq!(embeddings, [&json!([2.0, 3.0]), &json!([0.5, -1])]);

        for (lines, reason) in [
            (own, "has 2 numbers, the tokenizer was trained on 3"),
            (
                r#"{"id": "old", "embedding": [1, 2, 3]}"#,
                "item \"old\" is in the catalogue already",
            ),
        ] {
            let error = read(lines, Some(3), &encode).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_page_is_copied_without_the_model_of_another_run() {
        let folder = tempfile::tempdir().unwrap();
        let (page, out) = (folder.path().join("page"), folder.path().join("site"));
        assert!(copy_page(&page, &out).unwrap_err().to_string().contains("index.html"));
        fs::create_dir_all(page.join("assets/model")).unwrap();
        fs::create_dir_all(page.join("model")).unwrap();
        for file in ["index.html", "assets/model/a.js", "model/model.safetensors"] {
            fs::write(page.join(file), file).unwrap();
        }
        copy_page(&page, &out).unwrap();
        assert!(out.join("index.html").is_file() && out.join("assets/model/a.js").is_file());
        assert!(!out.join("model").exists());
        copy_page(&page, &page).unwrap();
        // Another's page is not written over; one of ours, with its model, is.
        fs::write(out.join("index.html"), "someone's").unwrap();
        let error = copy_page(&page, &out).unwrap_err().to_string();
        assert!(error.contains("site/index.html: is there already and no page"), "{error}");
        assert_eq!(fs::read_to_string(out.join("index.html")).unwrap(), "someone's");
        fs::create_dir(out.join("model")).unwrap();
        fs::write(bundle_of_site(&out), "").unwrap();
        copy_page(&page, &out).unwrap();
        assert_eq!(fs::read_to_string(out.join("index.html")).unwrap(), "index.html");
        assert_eq!(fs::read_to_string(page.join("index.html")).unwrap(), "index.html");
    }
}
