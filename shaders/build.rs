//! Assembles every permutation of every kernel, validates it with naga, and emits the typed lists
//! `SHADERS` and `LAYOUTS`: source, workgroup size, bindings, parameters and constants are read from
//! the shader itself.

mod compact;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, Expression, Literal, Module, StorageAccess, TypeInner};

use compact::Names;

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
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let (mut permutations, mut errors) = (Vec::new(), Vec::new());
    for line in lines {
        match Permutation::read(line) {
            Ok(permutation) => permutations.push(permutation),
            Err(e) => errors.push(format!("{line}:\n{e}")),
        }
    }
    let pieces = || permutations.iter().flat_map(|permutation| &permutation.pieces);
    let names = Names::new(pieces().map(String::as_str).collect::<BTreeSet<_>>());
    let mut texts = Vec::new();
    let mut entries = BTreeMap::new();
    for permutation in &permutations {
        match permutation.code(&names, &mut texts) {
            Ok(code) => {
                entries.insert(&permutation.name, code);
            }
            Err(e) => errors.push(format!(
                "{}, made compact (does a kernel give a name of WGSL to something of its own?):\n{e}",
                permutation.name
            )),
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
    let layouts: String = permutations.iter().map(Permutation::layout).collect();
    code += &body;
    code += "];\n/// The layout of every permutation.\npub static LAYOUTS: &[Layout] = &[\n";
    Ok(code + &layouts + "];\n")
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

/// One line of `permutations.txt`.
struct Permutation {
    name: String,
    /// The code for what the device has to have.
    requires: &'static str,
    /// Goes before the pieces.
    directive: &'static str,
    capabilities: Capabilities,
    /// The source.
    pieces: Vec<String>,
    /// What naga made of it.
    module: Module,
}

impl Permutation {
    fn read(line: &str) -> Result<Self, String> {
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
            Some("subgroups") => {
                ("Some(Requirement::Subgroups)", "", plain | Capabilities::SUBGROUP)
            }
            Some(other) => return Err(format!("`requires={other}` is unknown")),
        };
        let pieces = assemble(&format!("{kernel}.wgsl"), &parts)?;
        let name = name.trim().to_owned();
        // Errors quote the files, not their compact form.
        let module = validate(directive, capabilities, &pieces.concat())?;
        Ok(Self { name, requires, directive, capabilities, pieces, module })
    }

    /// The entry in the list of layouts.
    fn layout(&self) -> String {
        let Module { types, constants, global_expressions, .. } = &self.module;
        let params = types.iter().find_map(|(_, ty)| match &ty.inner {
            TypeInner::Struct { members, .. } if ty.name.as_deref() == Some("Params") => {
                Some(members)
            }
            _ => None,
        });
        let params = params.into_iter().flatten();
        let params: Vec<(&str, u32)> =
            params.filter_map(|member| Some((member.name.as_deref()?, member.offset))).collect();
        let value = |init| match global_expressions[init] {
            Expression::Literal(Literal::U32(value)) => Some(value),
            _ => None,
        };
        let constants =
            constants.iter().filter_map(|(_, c)| Some((c.name.as_deref()?, value(c.init)?)));
        let constants: Vec<(&str, u32)> = constants.collect();
        format!(
            "    Layout {{ name: {:?}, params: &{params:?}, constants: &{constants:?} }},\n",
            self.name
        )
    }

    /// The entry in the constant; `texts` gains the pieces that it does not have yet.
    fn code(&self, names: &Names, texts: &mut Vec<String>) -> Result<String, String> {
        let mut pieces: Vec<String> = self.pieces.iter().map(|text| names.compact(text)).collect();
        pieces.retain(|text| !text.is_empty());
        let module = validate(self.directive, self.capabilities, &pieces.concat())?;
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
        let mut source = Vec::new();
        for text in pieces {
            let at = texts.iter().position(|known| *known == text).unwrap_or(texts.len());
            if at == texts.len() {
                texts.push(text);
            }
            source.push(format!("TEXT_{at}"));
        }
        let bindings: Vec<String> = bindings
            .iter()
            .map(|(index, kind)| format!("Binding {{ index: {index}, kind: BindingKind::{kind} }}"))
            .collect();
        let (name, requires, size) = (&self.name, self.requires, entry.workgroup_size);
        let (source, bindings) = (source.join(", "), bindings.join(", "));
        Ok(format!(
            "    Shader {{ name: {name:?}, source: &[{source}], requires: {requires}, \
             workgroup_size: {size:?}, bindings: &[{bindings}] }},\n"
        ))
    }
}

/// What naga makes of a source, valid and with all that the capabilities allow.
fn validate(directive: &str, capabilities: Capabilities, source: &str) -> Result<Module, String> {
    let source = directive.to_owned() + source;
    let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string(&source))?;
    Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(&source))?;
    Ok(module)
}
