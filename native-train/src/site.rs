//! A run as a static site: the built demo page with the run's model, items and figures beside it.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tigret_infer::WeightFormat;

use crate::data::new_items::for_each_new_item;
use crate::data::template::TextRecipe;
use crate::embed::encoder::Ready;
use crate::error::{Result, TrainError};
use crate::evaluate::Split;
use crate::export::{bundle_of_run, write_bundle};
use crate::run_dir::{RunDir, read_json, write_atomically, write_json};
use crate::tokenizer::assign::load_quantizer;

/// The folder beside the page that holds what belongs to a run.
const MODEL: &str = "model";

/// What was laid beside the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Laid {
    /// Bytes of the bundle.
    pub bytes: usize,
    /// Items of the catalogue.
    pub items: usize,
    /// New items, which the model has not seen.
    pub new_items: usize,
}

/// Copies a built page to `out`, unless that is where it lies; an older run's model stays until
/// [`lay_run`] replaces it.
///
/// # Errors
/// [`TrainError::File`] where there is no page, or a file cannot be read or written.
pub fn copy_page(page: &Path, out: &Path) -> Result<()> {
    if !page.join("index.html").is_file() {
        return Err(TrainError::file(
            page,
            "has no index.html: it is no built page; `cargo xtask demo` builds one, into \
             web/demo-dist",
        ));
    }
    let same = || Some(page.canonicalize().ok()? == out.canonicalize().ok()?);
    match same() {
        Some(true) => Ok(()),
        _ => copy_folder(page, out, &|name| name != MODEL),
    }
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
            fs::copy(&source, &target).map_err(|e| TrainError::file(&source, e))?;
        }
    }
    Ok(())
}

/// Lays a run's model, items, figures and new items beside the page in `out`. The bundle carries
/// the tokenizer, if the run has one. New items (a JSONL file) keep the vector of their field
/// `embedding`; `encode` makes rows of content vectors of the others' texts.
///
/// # Errors
/// [`TrainError::File`] for artefacts that are missing or wrong, [`TrainError::Line`] for a new item
/// without an id or with a wrong vector, and what `encode` reports.
pub fn lay_run(
    run: &RunDir,
    out: &Path,
    format: WeightFormat,
    new_items: Option<&Path>,
    encode: impl FnOnce(&[&str]) -> Result<Vec<Vec<f32>>>,
    recipe: Option<&TextRecipe>,
) -> Result<Laid> {
    let folder = out.join(MODEL);
    fs::create_dir_all(&folder).map_err(|e| TrainError::file(&folder, e))?;
    let mut bundle = bundle_of_run(run, format)?;
    let mut width = None;
    if run.tokenizer().is_file() {
        let quantizer = load_quantizer(run)?;
        width = Some(quantizer.config().embedding());
        bundle =
            bundle.with_quantizer(quantizer).map_err(|e| TrainError::file(run.tokenizer(), e))?;
    }
    let bytes = write_bundle(&bundle, &folder.join("model.safetensors"))?;
    let items = fs::read(run.items()).map_err(|e| TrainError::file(run.items(), e))?;
    write_atomically(&folder.join("items.jsonl"), |file| file.write_all(&items))?;
    write_json(&folder.join("about.json"), &about(run)?)?;
    let to = folder.join("new.jsonl");
    let laid = match new_items {
        Some(path) => lay_new_items(path, &to, width, encode, recipe)?,
        None => {
            // Those of another run, if there are any.
            match fs::remove_file(&to) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(TrainError::file(&to, e));
                }
                _ => 0,
            }
        }
    };
    Ok(Laid { bytes, items: bundle.catalog.len(), new_items: laid })
}

fn lay_new_items(
    path: &Path,
    to: &Path,
    width: Option<usize>,
    encode: impl FnOnce(&[&str]) -> Result<Vec<Vec<f32>>>,
    recipe: Option<&TextRecipe>,
) -> Result<usize> {
    let mut items: Vec<Map<String, Value>> = Vec::new();
    let (mut without, mut texts): (Vec<usize>, Vec<String>) = (Vec::new(), Vec::new());
    for_each_new_item(path, |item| {
        // Without a tokenizer nothing says how long a vector is, and none is of use.
        if width.map_or(Ok(None), |width| item.embedding(width))?.is_none() {
            without.push(items.len());
            texts.push(item.text_to_encode(recipe)?);
        }
        items.push(item.fields);
        Ok(())
    })?;
    if !texts.is_empty() {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for (item, row) in without.into_iter().zip(encode(&texts)?) {
            items[item].insert("embedding".into(), json!(row));
        }
    }
    write_atomically(to, |file| {
        items.iter().try_for_each(|item| writeln!(file, "{}", Value::Object(item.clone())))
    })?;
    Ok(items.len())
}

/// Rows of content vectors by a run's encoder.
///
/// # Errors
/// What the encoder reports.
pub fn rows_by(encoder: &Ready, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
    let vectors = encoder.encode(texts, &|| false)?;
    Ok(vectors.data.chunks_exact(vectors.dimensions).map(<[f32]>::to_vec).collect())
}

/// What the page says of the model: figures of the test items, as the optimum is. A run whose model
/// was not evaluated on them has none.
fn about(run: &RunDir) -> Result<Value> {
    let dataset: Value = read_json(&run.dataset(), "make it with `tigret prepare`")?;
    let optional = |path: &Path| read_json(path, "").unwrap_or(Value::Null);
    let (mut evaluation, oracle) = (optional(&run.evaluation()), optional(&run.oracle()));
    if evaluation["settings"]["split"] != json!(Split::Test) {
        evaluation = Value::Null;
    }
    Ok(json!({
        "name": dataset["source"],
        "simulated": dataset["simulated"],
        "items": dataset["items"],
        "users": dataset["users"],
        "recall@10": evaluation["model"]["recall@10"],
        "popularity recall@10": evaluation["popularity"]["recall@10"],
        "optimum recall@10": oracle["recall@10"],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_told_the_figures_that_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path()).unwrap();
        assert!(about(&run).unwrap_err().to_string().contains("tigret prepare"));
        let dataset = json!({"source": "classics", "simulated": true, "items": 12, "users": 3});
        write_json(&run.dataset(), &dataset).unwrap();
        assert_eq!(about(&run).unwrap()["recall@10"], Value::Null);
        write_json(&run.oracle(), &json!({"recall@10": 0.5})).unwrap();
        let figures = ["recall@10", "popularity recall@10", "optimum recall@10"];
        // The optimum is one of the test items: figures of others do not stand beside it.
        for (split, expected) in
            [("test", [Some(0.4), Some(0.1), Some(0.5)]), ("validation", [None, None, Some(0.5)])]
        {
            let evaluation = json!({"settings": {"split": split},
                "model": {"recall@10": 0.4}, "popularity": {"recall@10": 0.1}});
            write_json(&run.evaluation(), &evaluation).unwrap();
            let told = about(&run).unwrap();
            assert_eq!((&told["name"], &told["items"]), (&json!("classics"), &json!(12)));
            assert_eq!(figures.map(|name| told[name].as_f64()), expected, "{split}");
        }
    }

    #[test]
    fn new_items_keep_vectors_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let (path, to) = (folder.path().join("new.jsonl"), folder.path().join("laid.jsonl"));
        let lay = |lines: &str, width, encode: &dyn Fn(&[&str]) -> Vec<Vec<f32>>| {
            fs::write(&path, lines).unwrap();
            lay_new_items(&path, &to, width, |texts| Ok(encode(texts)), None)
        };
        let own = r#"{"id": "a", "embedding": [0.5, -1]}"#;
        assert_eq!(lay(own, Some(2), &|_| panic!("needs no encoder")).unwrap(), 1);
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(parsed(&fs::read_to_string(&to).unwrap()), parsed(own));

        let both = format!("{{\"id\": \"b\", \"text\": \"of b\"}}\n{own}\n");
        let encode = |texts: &[&str]| {
            assert_eq!(texts, ["of b"]);
            vec![vec![2.0, 3.0]]
        };
        assert_eq!(lay(&both, Some(2), &encode).unwrap(), 2);
        let laid = fs::read_to_string(&to).unwrap();
        let embeddings: Vec<Value> =
            laid.lines().map(|line| parsed(line)["embedding"].clone()).collect();
        assert_eq!(embeddings, [json!([2.0, 3.0]), json!([0.5, -1])]);

        let error = lay(own, Some(3), &encode).unwrap_err().to_string();
        assert!(error.contains("has 2 numbers, the tokenizer was trained on 3"), "{error}");
        assert_eq!(fs::read_to_string(&to).unwrap(), laid);
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
        assert_eq!(fs::read_to_string(page.join("index.html")).unwrap(), "index.html");
    }
}
