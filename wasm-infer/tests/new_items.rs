//! Items added on the device: their codes, and every engine's answers afterwards.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made fails the test")]

use std::sync::Arc;

use pollster::block_on;
use tigret_infer::testing::{
    Random, Shape, exhaustive, on_gpu, random_bundle, random_bundle_with_quantizer,
};
use tigret_infer::{
    Backend, Bundle, GpuOptions, InferError, NewItem, Recommendation, Recommender, Request,
    WeightFormat,
};

const TOLERANCE: f32 = 1e-3;

fn bundle() -> Arc<Bundle> {
    let shape = Shape { levels: vec![7, 9, 16], items: 60, ..Shape::default() };
    Arc::new(random_bundle_with_quantizer(&shape, WeightFormat::Q8, 4))
}

fn new_items(count: usize, seed: u64) -> Vec<NewItem> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|i| NewItem {
            id: format!("new-{i}"),
            embedding: (0..6).map(|_| 2.0 * random.signed()).collect(),
        })
        .collect()
}

/// On the CPU and, where there is a GPU, on the GPU.
fn on_each_engine(bundle: &Arc<Bundle>, mut check: impl FnMut(&str, Recommender)) {
    for (name, backend) in [("cpu", Backend::Cpu), ("gpu", Backend::Gpu(GpuOptions::default()))] {
        let made = block_on(Recommender::new(Arc::clone(bundle), backend));
        if let Some(recommender) = on_gpu(made) {
            check(name, recommender);
        }
    }
}

fn ask(recommender: &mut Recommender, request: &Request) -> Recommendation {
    block_on(recommender.recommend(request)).unwrap()
}

#[test]
fn nothing_added_leaves_the_catalogue_where_it_is() {
    on_each_engine(&bundle(), |name, mut recommender| {
        let before = Arc::clone(recommender.catalog());
        assert_eq!(recommender.add_items(&[]).unwrap(), []);
        assert!(Arc::ptr_eq(&before, recommender.catalog()), "{name}");
    });
}

#[test]
fn added_items_are_found_with_their_exact_scores() {
    let bundle = bundle();
    let items = new_items(40, 1);
    on_each_engine(&bundle, |name, mut recommender| {
        let before = recommender.catalog().clone();
        let added = recommender.add_items(&items).unwrap();
        assert_eq!(added.len(), 40);
        let catalog = recommender.catalog().clone();
        assert_eq!(catalog.len(), 100);
        for (rank, id) in before.ids().iter().enumerate() {
            let now = catalog.rank_of(id).unwrap();
            assert_eq!(before.codes_of(rank as u32), catalog.codes_of(now), "{id}");
        }
        let history = vec!["item-3".to_owned(), "new-7".into(), "new-0".into()];
        let request =
            Request { history, top: 512, beams: 512, exclude_history: true, ..Request::default() };
        let (query, unknown) = Recommender::prepare(&bundle.tokens, &catalog, &request).unwrap();
        assert!(unknown.is_empty());
        let expected = exhaustive(&bundle, &catalog, &query);
        let found = ask(&mut recommender, &request).items;
        assert_eq!(found.len(), 97, "{name}: all but the history");
        for (hit, pick) in expected.iter().zip(&found) {
            assert!((hit.score - pick.score).abs() < TOLERANCE, "{name}: {pick:?}, not {hit:?}");
        }
        let one = added.iter().find(|a| a.id == "new-9").unwrap();
        let pick = found.iter().find(|pick| pick.id == "new-9").unwrap();
        assert_eq!(pick.codes, one.codes, "{name}");
    });
}

#[test]
fn filters_know_added_items_at_once() {
    let bundle = bundle();
    on_each_engine(&bundle, |name, mut recommender| {
        recommender.add_items(&new_items(5, 2)).unwrap();
        let ids = |recommender: &mut Recommender, request: Request| -> Vec<String> {
            ask(recommender, &request).items.into_iter().map(|pick| pick.id).collect()
        };
        let allow = Some(vec!["new-1".to_owned(), "new-4".into(), "nowhere".into()]);
        let mut only =
            ids(&mut recommender, Request { allow: allow.clone(), ..Request::default() });
        only.sort();
        assert_eq!(only, ["new-1", "new-4"], "{name}");
        let exclude = vec!["new-4".to_owned()];
        let rest = ids(&mut recommender, Request { allow, exclude, ..Request::default() });
        assert_eq!(rest, ["new-1"], "{name}");
    });
}

/// As many beams as items are alive, so that more items make a wide search larger: here more than
/// some adapters bind, where room for 300 beams has been made for 512.
#[test]
fn items_can_be_added_after_a_wide_search() {
    let shape = Shape { levels: vec![300, 300], users: 66_000, items: 100, ..Shape::narrow() };
    let bundle = Arc::new(random_bundle_with_quantizer(&shape, WeightFormat::F32, 4));
    let items = new_items(500, 3);
    let request = |beams| Request { top: 20, beams, ..Request::default() };
    let mut answers = Vec::new();
    on_each_engine(&bundle, |name, mut recommender| {
        ask(&mut recommender, &request(300));
        assert_eq!(recommender.add_items(&items).unwrap().len(), 500, "{name}");
        answers.push([300, 50].map(|beams| ask(&mut recommender, &request(beams)).items));
    });
    for (expected, found) in answers[0].iter().zip(answers.last().unwrap()) {
        assert_eq!(found.len(), 20);
        for (expected, found) in expected.iter().zip(found) {
            assert!((expected.score - found.score).abs() < TOLERANCE, "{found:?}");
        }
    }
}

/// More items than there is room for on some adapters: the logits of 40 beams.
#[test]
fn items_that_a_gpu_refuses_leave_its_answers_as_they_were() {
    let shape = Shape { levels: vec![300, 300], users: 1_000_000, items: 20, ..Shape::narrow() };
    let bundle = Arc::new(random_bundle_with_quantizer(&shape, WeightFormat::F32, 4));
    let items = new_items(20, 3);
    on_each_engine(&bundle, |name, mut recommender| {
        let request = Request { top: 40, ..Request::default() };
        ask(&mut recommender, &request);
        match recommender.add_items(&items) {
            Ok(added) => assert_eq!(added.len(), 20, "{name}"),
            Err(InferError::NoGpu(_)) => assert_eq!(recommender.catalog().len(), 20, "{name}"),
            Err(other) => panic!("{name}: {other}"),
        }
        let mut cpu = block_on(recommender.on(Backend::Cpu)).unwrap();
        let (expected, found) = (ask(&mut cpu, &request), ask(&mut recommender, &request));
        assert_eq!(found.items.len(), recommender.catalog().len(), "{name}");
        for (expected, found) in expected.items.iter().zip(&found.items) {
            assert!((expected.score - found.score).abs() < TOLERANCE, "{name}: {found:?}");
        }
    });
}

#[test]
fn explanations_and_traces_know_added_items_at_once() {
    let bundle = bundle();
    let items = new_items(2, 7);
    on_each_engine(&bundle, |name, mut recommender| {
        // Calls before the first item bind buffers that it replaces; before the second, there is what
        // explains answers of the GPU.
        ask(&mut recommender, &Request::default());
        for item in &items {
            let added = recommender.add_items(std::slice::from_ref(item)).unwrap().remove(0);
            let history = vec!["item-3".to_owned(), "item-5".into()];
            let allow = Some(vec![item.id.clone()]);
            let request = Request { history, allow, ..Request::default() };
            let pick = ask(&mut recommender, &request).items.remove(0);
            let explained = recommender.explain(&request, &item.id).unwrap();
            assert_eq!(explained.codes, added.codes, "{name}");
            assert!((explained.score - pick.score).abs() < TOLERANCE, "{name}");
            let last = recommender.trace(&request).unwrap().pop().unwrap();
            assert_eq!(last.len(), 1, "{name}");
            assert_eq!(last[0].codes, added.codes, "{name}");
            assert!((last[0].score - pick.score).abs() < TOLERANCE, "{name}");
        }
    });
}

#[test]
fn items_added_in_turn_or_together_get_the_same_ids_on_every_engine() {
    let bundle = bundle();
    let items = new_items(30, 3);
    let together = {
        let mut cpu = block_on(Recommender::new(Arc::clone(&bundle), Backend::Cpu)).unwrap();
        cpu.add_items(&items).unwrap()
    };
    on_each_engine(&bundle, |name, mut recommender| {
        let in_turn: Vec<_> = items
            .iter()
            .flat_map(|item| recommender.add_items(std::slice::from_ref(item)).unwrap())
            .collect();
        assert_eq!(in_turn, together, "{name}");
        // Another engine takes them over.
        let other = block_on(recommender.on(Backend::Cpu)).unwrap();
        assert_eq!(other.catalog().codes(), recommender.catalog().codes());
    });
}

#[test]
fn what_cannot_be_added_is_refused_by_name_and_nothing_is_added() {
    let bundle = bundle();
    on_each_engine(&bundle, |name, mut recommender| {
        let good = || new_items(2, 4);
        let twin = |i: usize| NewItem { id: format!("twin-{i}"), ..new_items(1, 4).remove(0) };
        let item =
            |id: &str, embedding: &[f32]| NewItem { id: id.into(), embedding: embedding.to_vec() };
        for (bad, message) in [
            (vec![item("item-3", &[0.0; 6])], "item \"item-3\" is already in the catalogue"),
            (vec![item("x", &[0.0; 6]), item("x", &[0.0; 6])], "item \"x\" is given twice"),
            (vec![item("", &[0.0; 6])], "item \"\" has an empty id"),
            (vec![item("x", &[0.0; 5])], "embedding has 5 numbers, the tokenizer was trained on 6"),
            (vec![item("x", &[f32::INFINITY; 6])], "number 0 of its embedding is inf"),
            ((0..17).map(twin).collect(), "all 16 semantic IDs under the codes"),
        ] {
            let items = [good(), bad].concat();
            let error = recommender.add_items(&items).unwrap_err();
            assert!(matches!(error, InferError::Request(_)), "{error:?}");
            assert!(error.to_string().contains(message), "{name}: {error}");
            assert_eq!(recommender.catalog().len(), 60, "{name}: all or none");
        }
    });
    let without = Arc::new(random_bundle(&Shape::default(), WeightFormat::F32, 1));
    let mut recommender = block_on(Recommender::new(without, Backend::Cpu)).unwrap();
    let error = recommender.add_items(&new_items(1, 5)).unwrap_err();
    assert!(matches!(error, InferError::NoTokenizer));
    assert!(error.to_string().contains("--with-tokenizer"), "{error}");
}

#[test]
fn thousands_of_items_can_be_added_at_once() {
    let shape = Shape { levels: vec![16, 16, 4096], items: 300, ..Shape::default() };
    let bundle = Arc::new(random_bundle_with_quantizer(&shape, WeightFormat::Q8, 6));
    on_each_engine(&bundle, |name, mut recommender| {
        recommender.add_items(&new_items(5000, 6)).unwrap();
        let request = Request { allow: Some(vec!["new-4999".into()]), ..Request::default() };
        let found = ask(&mut recommender, &request).items;
        assert_eq!(
            found.iter().map(|pick| pick.id.as_str()).collect::<Vec<_>>(),
            ["new-4999"],
            "{name}"
        );
    });
}
