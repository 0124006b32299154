//! A server of static files for this machine only.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use tiny_http::{Header, Method, Request, Response, Server};

use crate::error::{Error, Result};

/// How many ports are tried from the wished one on.
const PORTS: u16 = 20;

/// Listens on loopback, on `port` or the next free one.
///
/// # Errors
/// When none of the ports tried is free.
pub(crate) fn listen(port: u16) -> Result<(Server, SocketAddr)> {
    let mut last = String::new();
    for port in port..=port.saturating_add(PORTS - 1) {
        match Server::http((Ipv4Addr::LOCALHOST, port)) {
            Ok(server) => {
                let address = server.server_addr().to_ip();
                return address
                    .map(|address| (server, address))
                    .ok_or_else(|| Error::message("the server has no address"));
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(Error::message(format!("no free port from {port} on ({last}); choose another with --port")))
}

/// Serves the files of a folder until the process ends.
pub(crate) fn serve(server: &Server, folder: &Path) {
    for request in server.incoming_requests() {
        // A visitor who went away is no error of ours.
        let _ = answer(request, folder);
    }
}

fn answer(request: Request, folder: &Path) -> io::Result<()> {
    if !matches!(request.method(), Method::Get | Method::Head) {
        return request.respond(Response::empty(405));
    }
    let Some(path) = file_of(request.url()).map(|path| folder.join(path)) else {
        return request.respond(Response::from_string("bad path\n").with_status_code(400));
    };
    match File::open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata))) {
        Ok((file, metadata)) if metadata.is_file() => {
            // Chunks would hide the length, which the page shows its progress by.
            let mut response = Response::from_file(file).with_chunked_threshold(usize::MAX);
            for (name, value) in [
                ("Content-Type", media_type(&path)),
                // The page is rebuilt under the same names.
                ("Cache-Control", "no-cache"),
                // With these two a browser gives the page a finer clock.
                ("Cross-Origin-Opener-Policy", "same-origin"),
                ("Cross-Origin-Embedder-Policy", "require-corp"),
            ] {
                if let Ok(header) = Header::from_bytes(name, value) {
                    response.add_header(header);
                }
            }
            request.respond(response)
        }
        _ => request.respond(Response::from_string("not found\n").with_status_code(404)),
    }
}

/// The file that a URL's path names, relative to the folder served; `None` if it would leave it.
fn file_of(url: &str) -> Option<PathBuf> {
    let path = url.split(['?', '#']).next()?.strip_prefix('/')?;
    let path = if path.is_empty() || path.ends_with('/') {
        format!("{path}index.html")
    } else {
        path.to_owned()
    };
    let path = PathBuf::from(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("jsonl") => "application/jsonl; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    fn a_path_never_leaves_the_folder() {
        assert_eq!(file_of("/"), Some("index.html".into()));
        assert_eq!(file_of("/a/"), Some("a/index.html".into()));
        assert_eq!(file_of("/assets/x.js?v=1"), Some("assets/x.js".into()));
        for bad in ["/../Cargo.toml", "/a/../../b", "//etc/passwd", "no-slash"] {
            assert_eq!(file_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn modules_have_the_types_that_browsers_insist_on() {
        assert_eq!(media_type(Path::new("a.wasm")), "application/wasm");
        assert!(media_type(Path::new("a.js")).starts_with("text/javascript"));
        assert_eq!(media_type(Path::new("m.safetensors")), "application/octet-stream");
    }

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("connected");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        text
    }

    #[test]
    fn files_are_served_on_loopback_and_a_taken_port_is_passed_over() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("a.wasm"), b"\0asm").expect("written");
        std::fs::write(folder.path().join("large.json"), vec![b' '; 100_000]).expect("written");
        let (server, address) = listen(45_173).expect("listening");
        assert!(address.ip().is_loopback());
        let (_second, next) = listen(address.port()).expect("listening");
        assert!(next.port() > address.port());

        std::thread::spawn(move || serve(&server, folder.path()));
        let found = get(address, "/a.wasm");
        assert!(found.starts_with("HTTP/1.1 200"), "{found}");
        assert!(found.contains("Content-Type: application/wasm"), "{found}");
        assert!(found.ends_with("\0asm"), "{found}");
        assert!(get(address, "/large.json").contains("Content-Length: 100000"));
        assert!(get(address, "/b.wasm").starts_with("HTTP/1.1 404"));
        assert!(get(address, "/../a.wasm").starts_with("HTTP/1.1 400"));
    }
}
