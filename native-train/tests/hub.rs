//! `tigret embed --encoder hub:NAME` against a small server on this machine.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use tigret_train::data::Dataset;
use tigret_train::embed::Vectors;
use tigret_train::run_dir::RunDir;

use crate::tigret::{Place, fails, files, golden_encoder, succeeds, tigret};

const MODEL: &str = "acme/tiny-bert";
const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";

/// Serves the golden folder as a hub would, and notes what was asked for.
struct Hub {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What was asked for.
    asked: Vec<String>,
    /// The file whose download breaks off in the middle.
    broken: Option<&'static str>,
    /// A file that the model does not have.
    lacking: Option<&'static str>,
}

impl Hub {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::default(),
        };
        let state = Arc::clone(&hub.state);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that goes away is no fault of the server.
                let _ = answer(stream, &state);
            }
        });
        hub
    }

    /// What was asked for since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state().asked)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let files = format!("/{MODEL}/resolve/{REVISION}/");
    let body = if path == format!("/api/models/{MODEL}") {
        let names = [
            "config.json",
            "tokenizer.json",
            "modules.json",
            "sentence_bert_config.json",
            "config_sentence_transformers.json",
            "tokenizer_config.json",
            "1_Pooling/config.json",
            "2_Normalize/config.json",
            WEIGHTS,
            "README.md",
            "onnx/model.safetensors",
            "../outside.json",
        ];
        let lacking = state.lock().unwrap().lacking;
        let names = names.into_iter().filter(|name| Some(*name) != lacking);
        let siblings: Vec<_> = names.map(|name| serde_json::json!({"rfilename": name})).collect();
        Some(serde_json::json!({"sha": REVISION, "siblings": siblings}).to_string().into_bytes())
    } else {
        path.strip_prefix(&files).and_then(|file| fs::read(golden_encoder("bert").join(file)).ok())
    };
    let file = path.strip_prefix(&files).unwrap_or_default().to_owned();
    state.lock().unwrap().asked.push(path);
    let Some(body) = body else {
        return stream.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    };
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    let broken = state.lock().unwrap().broken;
    let sent = match broken {
        Some(name) if name == file => body.len() / 2,
        _ => body.len(),
    };
    stream.write_all(&body[..sent])
}

struct World(Place);

impl World {
    /// A run with three items.
    fn new() -> Self {
        let world = Self(Place::new());
        let items = ["red lamp", "blue lamp", "oil"].map(|title| {
            format!("{{\"id\": \"{}\", \"title\": \"{title}\"}}\n", title.replace(' ', "-"))
        });
        world.0.write("items.jsonl", items.concat());
        world.0.write("s.txt", "u red-lamp blue-lamp oil\n");
        succeeds(&mut world.tigret("", "prepare --run r --sequences s.txt --items items.jsonl"));
        world
    }

    fn tigret(&self, endpoint: &str, line: &str) -> Command {
        let mut command = tigret(&self.0, line);
        // No proxy lies between this machine and itself.
        for proxy in
            ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        {
            command.env_remove(proxy);
        }
        command
            .env("HF_ENDPOINT", endpoint)
            .env("HF_HUB_CACHE", self.0.join("cache"))
            .env_remove("HF_HOME");
        command
    }

    fn with_encoder(&self, endpoint: &str, encoder: &str) -> Command {
        self.tigret(endpoint, &format!("embed --run r --device cpu --encoder {encoder}"))
    }

    /// Standard error of an `embed` that must succeed.
    fn embed(&self, endpoint: &str, encoder: &str) -> String {
        succeeds(&mut self.with_encoder(endpoint, encoder)).1
    }

    fn refuse(&self, endpoint: &str, encoder: &str) -> String {
        fails(&mut self.with_encoder(endpoint, encoder))
    }

    /// Files of the cache, by their paths in it.
    fn cached(&self) -> Vec<String> {
        let text = |file: PathBuf| file.into_os_string().into_string().unwrap();
        files(&self.0.join("cache")).into_iter().map(text).collect()
    }

    fn vectors(&self) -> Vectors {
        let run = RunDir::open(self.0.join("r")).unwrap();
        Vectors::load(&run, &Dataset::load(&run).unwrap().items).unwrap()
    }
}

#[test]
fn a_model_is_downloaded_once_and_gives_the_vectors_of_its_folder() {
    let (hub, world) = (Hub::start(), World::new());
    let errors = world.embed(&hub.address, &format!("hub:{MODEL}"));
    assert!(errors.contains("downloading model.safetensors"), "{errors}");
    let asked = hub.asked();
    assert_eq!(asked[0], format!("/api/models/{MODEL}"));
    assert_eq!(asked.len(), 10, "the list and nine files, none for other runtimes: {asked:?}");
    let snapshot = format!("models--acme--tiny-bert/snapshots/{REVISION}");
    let cached = world.cached();
    assert!(cached.contains(&format!("{snapshot}/1_Pooling/config.json")), "{cached:?}");
    assert!(cached.contains(&"models--acme--tiny-bert/refs/main".to_owned()), "{cached:?}");
    assert!(cached.iter().all(|file| !file.contains("outside") && !file.contains("README")));

    let downloaded = world.vectors();
    // Cached: it works without any request, and even without a server.
    world.embed(&hub.address, &format!("hub:{MODEL}"));
    assert!(hub.asked().is_empty());
    world.embed("http://127.0.0.1:9", &format!("hub:{MODEL}"));
    // Later texts are encoded by the same name.
    world.0.write("new.jsonl", "{\"id\": 1, \"text\": \"red lamp.\"}\n");
    let texts = "embed --run r --texts new.jsonl --out n.safetensors";
    succeeds(&mut world.tigret("http://127.0.0.1:9", texts));
    world.embed("", golden_encoder("bert").to_str().unwrap());
    assert_eq!(world.vectors(), downloaded);
}

#[test]
fn what_other_tools_left_out_of_the_cache_is_fetched() {
    let (hub, world) = (Hub::start(), World::new());
    world.embed(&hub.address, &format!("hub:{MODEL}"));
    let expected = world.vectors();
    hub.asked();
    let snapshot = format!("cache/models--acme--tiny-bert/snapshots/{REVISION}");
    for file in ["modules.json", "1_Pooling/config.json", WEIGHTS] {
        fs::remove_file(world.0.join(&snapshot).join(file)).unwrap();
        world.embed(&hub.address, &format!("hub:{MODEL}"));
        let fetched = format!("/{MODEL}/resolve/{REVISION}/{file}");
        assert_eq!(hub.asked(), [format!("/api/models/{MODEL}"), fetched]);
        assert_eq!(world.vectors(), expected);
    }
}

#[test]
fn a_cache_is_not_taken_for_whole_after_a_download_that_broke() {
    let (hub, world) = (Hub::start(), World::new());
    world.embed(&hub.address, &format!("hub:{MODEL}"));
    let snapshot = world.0.join(format!("cache/models--acme--tiny-bert/snapshots/{REVISION}"));
    let optional = "sentence_bert_config.json";
    for file in ["modules.json", optional] {
        fs::remove_file(snapshot.join(file)).unwrap();
    }
    hub.state().broken = Some(optional);
    world.refuse(&hub.address, &format!("hub:{MODEL}"));
    hub.state().broken = None;
    world.embed(&hub.address, &format!("hub:{MODEL}"));
    assert!(snapshot.join(optional).exists());
}

#[test]
fn a_model_without_a_list_of_modules_is_downloaded_once() {
    let (hub, world) = (Hub::start(), World::new());
    hub.state().lacking = Some("modules.json");
    world.embed(&hub.address, &format!("hub:{MODEL}"));
    let noted = format!("models--acme--tiny-bert/.no_exist/{REVISION}/modules.json");
    assert!(world.cached().contains(&noted), "as Hugging Face's own tools note it");
    let errors = world.embed("http://127.0.0.1:9", &format!("hub:{MODEL}"));
    assert!(errors.contains("has no modules.json"), "{errors}");
}

#[test]
fn a_connection_that_breaks_leaves_no_half_file_and_the_next_try_goes_on() {
    let (hub, world) = (Hub::start(), World::new());
    hub.state().broken = Some(WEIGHTS);
    let error = world.refuse(&hub.address, &format!("hub:{MODEL}"));
    assert!(error.contains(&format!("hub:{MODEL}")) && error.contains(WEIGHTS), "{error}");
    assert!(error.contains("broke off"), "{error}");
    let cached = world.cached();
    assert!(cached.iter().all(|file| !file.contains(WEIGHTS) && !file.contains("partial")));
    assert!(!cached.iter().any(|file| file.ends_with("refs/main")), "{cached:?}");
    let first = hub.asked().len();
    hub.state().broken = None;
    world.embed(&hub.address, &format!("hub:{MODEL}"));
    let second = hub.asked();
    assert!(second.len() < first, "what is there is not fetched again: {second:?}");
    assert!(second.iter().any(|path| path.ends_with(WEIGHTS)));
}

#[test]
fn a_model_that_is_not_there_and_a_hub_that_does_not_answer_are_told_apart() {
    let (hub, world) = (Hub::start(), World::new());
    let error = world.refuse(&hub.address, "hub:acme/other");
    assert!(error.contains("hub:acme/other is not a public model on http://127.0.0.1"), "{error}");
    let error = world.refuse("http://127.0.0.1:9", &format!("hub:{MODEL}"));
    assert!(error.contains("cannot be downloaded from http://127.0.0.1:9"), "{error}");
    assert!(error.contains("give the folder of a downloaded model instead"), "{error}");
    let error = world.refuse(&hub.address, "hub:../etc");
    assert!(error.contains("is no name of a model"), "{error}");
    // A bare name is one of sentence-transformers, as in its own library.
    world.refuse(&hub.address, "hub:tiny");
    assert_eq!(hub.asked().last().unwrap(), "/api/models/sentence-transformers/tiny");
    assert!(world.cached().is_empty());
}
