//! Assembles every permutation of every kernel, validates it with naga, and emits the typed
//! `SHADERS` list: source, workgroup size and bindings are read from the shader itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, StorageAccess};

fn main() {
    println!("cargo::rerun-if-changed=.");
    match generate() {
        Ok(code) => {
            let out = env::var("OUT_DIR").unwrap_or_default();
            if let Err(e) = fs::write(Path::new(&out).join("shaders.rs"), code) {
                fail(&[format!("cannot write the generated code: {e}")]);
            }
        }
        Err(errors) => fail(&errors),
    }
}

fn fail(errors: &[String]) -> ! {
    for error in errors {
        eprintln!("{error}");
    }
    eprintln!("{} error(s) in the shaders", errors.len());
    std::process::exit(1);
}

/// The code of the constants, or all errors of all permutations.
fn generate() -> Result<String, Vec<String>> {
    let list = fs::read_to_string("permutations.txt").map_err(|e| vec![e.to_string()])?;
    let mut entries = BTreeMap::new();
    let mut texts = Vec::new();
    let mut errors = Vec::new();
    for line in list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        match permutation(line, &mut texts) {
            Ok((name, code)) => {
                entries.insert(name, code);
            }
            Err(e) => errors.push(format!("{line}:\n{e}")),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut code = String::new();
    for (index, text) in texts.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(code, "const TEXT_{index}: &str = {text:?};");
    }
    let body: String = entries.into_values().collect();
    code += "/// Every permutation, sorted by name.\npub static SHADERS: &[Shader] = &[\n";
    Ok(code + &body + "];\n")
}

/// The pieces of a file: its own text, and in the place of each `#import` line the pieces of the
/// part that it names.
fn assemble(path: &str, parts: &BTreeMap<&str, &str>) -> Result<Vec<String>, String> {
    let mut pieces = vec![String::new()];
    for line in fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?.lines() {
        match line.strip_prefix("#import ") {
            Some(part) => {
                let file = parts.get(part.trim()).copied().unwrap_or(part.trim());
                pieces.extend(assemble(&format!("shared/{file}.wgsl"), parts)?);
                pieces.push(String::new());
            }
            None => {
                if let Some(text) = pieces.last_mut() {
                    *text += line;
                    text.push('\n');
                }
            }
        }
    }
    Ok(pieces)
}

/// WGSL without comments and indentation: it is part of what a page downloads.
fn compact(source: &str) -> String {
    let code = source.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    code.filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect()
}

/// One line of `permutations.txt` to its name and its entry in the constant; `texts` gains the
/// pieces that it does not have yet.
fn permutation(line: &str, texts: &mut Vec<String>) -> Result<(String, String), String> {
    let (name, rest) = line.split_once('=').ok_or("expected `name = kernel part=file ...`")?;
    let mut words = rest.split_whitespace();
    let kernel = words.next().ok_or("no kernel")?;
    let parts: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
    // `unpack2x16float` is in WGSL itself; only adapters that WebGPU leaves out lack it.
    let plain = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let (requires, directive, capabilities) = match parts.get("requires").copied() {
        None => ("None", "", plain),
        Some("halves") => {
            ("Some(Requirement::Halves)", "enable f16;\n", plain | Capabilities::SHADER_FLOAT16)
        }
        Some("packed-products") => ("Some(Requirement::PackedProducts)", "", plain),
        Some("subgroups") => ("Some(Requirement::Subgroups)", "", plain | Capabilities::SUBGROUP),
        Some(other) => return Err(format!("`requires={other}` is unknown")),
    };
    let pieces = assemble(&format!("{kernel}.wgsl"), &parts)?;
    let source = directive.to_owned() + &pieces.concat();
    let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string(&source))?;
    Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(&source))?;
    let entry = module.entry_points.first().ok_or("no entry point")?;
    let mut bindings = BTreeMap::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(binding) = &variable.binding else { continue };
        let kind = match variable.space {
            AddressSpace::Uniform => "Uniform",
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                "ReadWrite"
            }
            AddressSpace::Storage { .. } => "Read",
            other => return Err(format!("unexpected address space {other:?}")),
        };
        if bindings.insert(binding.binding, kind).is_some() {
            return Err(format!("binding {} is used twice", binding.binding));
        }
    }
    let mut names = Vec::new();
    for text in pieces.iter().map(|piece| compact(piece)).filter(|text| !text.is_empty()) {
        let at = texts.iter().position(|known| *known == text).unwrap_or(texts.len());
        if at == texts.len() {
            texts.push(text);
        }
        names.push(format!("TEXT_{at}"));
    }
    let mut code = String::new();
    let bindings: Vec<String> = bindings
        .iter()
        .map(|(index, kind)| format!("Binding {{ index: {index}, kind: BindingKind::{kind} }}"))
        .collect();
    write!(
        code,
        "    Shader {{\n        name: {:?},\n        source: &[{}],\n        requires: {requires},\n        workgroup_size: {:?},\n        bindings: &[{}],\n    }},\n",
        name.trim(),
        names.join(", "),
        entry.workgroup_size,
        bindings.join(", ")
    )
    .map_err(|e| e.to_string())?;
    Ok((name.trim().to_owned(), code))
}
