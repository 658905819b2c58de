//! Kernels in the Metal Shading Language as C++: what C++ has no words for is rewritten line by line.

use std::fmt::Write as _;

/// A program that launches any kernel of a file: `own`, called `name`, behind the functions that all files use.
pub(crate) fn program(name: &str, own: &str) -> String {
    let functions = include_str!("../../src/metal/kernels/functions.metal");
    let mut program = String::new();
    for (file, header) in [
        ("metal_stdlib.h", include_str!("metal_stdlib.h")),
        ("threads.h", include_str!("threads.h")),
        (
            "metal_simdgroup_matrix.h",
            include_str!("metal_simdgroup_matrix.h"),
        ),
        ("functions.metal", &rewritten(functions)),
        (&format!("{name}.metal"), &rewritten(own)),
        ("table of kernels", &table(own)),
        ("program.h", include_str!("program.h")),
    ] {
        // Errors then name the file and the line.
        _ = writeln!(program, "#line 1 \"{file}\"\n{header}");
    }
    program
}

/// The text with as many lines, without comments.
fn rewritten(text: &str) -> String {
    text.lines()
        .map(|line| rewritten_line(without_comment(line)) + "\n")
        .collect()
}

fn rewritten_line(line: &str) -> String {
    let words = line.trim();
    if words.starts_with("#include") || words.starts_with("template [[host_name(") {
        return String::new();
    }
    // constant TYPE NAME [[function_constant(INDEX)]];
    if let Some((declaration, index)) = words.split_once("[[function_constant(")
        && let [_, held_type, name] = declaration.split_whitespace().collect::<Vec<_>>()[..]
    {
        let index = index.trim_end_matches(")]];");
        return format!("static host::FunctionConstant<{held_type}, {index}> {name};");
    }
    // threadgroup TYPE NAME[SIZE];
    if let Some(array) = words.strip_prefix("threadgroup ")
        && let Some((declaration, size)) = array.strip_suffix("];").and_then(|array| array.split_once('['))
        && let Some((held_type, name)) = declaration.split_once(' ')
    {
        return format!("static host::Shared<{held_type}, {size}> {name}; {name}.enter();");
    }
    line.to_owned()
}

fn without_comment(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// The kernels of a file by their names, each with a function that calls it with its arguments.
fn table(text: &str) -> String {
    let mut table = String::from(
        "namespace host {\nstruct Kernel { const char* name; void (*run)(); };\nstatic const Kernel KERNELS[] = {\n",
    );
    for (name, arguments) in kernels(text) {
        let mut of_types: Vec<_> = text
            .lines()
            .filter_map(instance)
            .filter(|(_, function)| function.split('<').next() == Some(&name))
            .collect();
        if of_types.is_empty() {
            of_types.push((&name, &name));
        }
        for (name, function) in of_types {
            _ = writeln!(table, "  {{\"{name}\", [] {{ {function}({arguments}); }}}},");
        }
    }
    table + "};\n}  // namespace host\n"
}

/// The name and the function of `template [[host_name("NAME")]] [[kernel]] decltype(FUNCTION) FUNCTION;`.
fn instance(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("template [[host_name(\"")?.split_once('"')?;
    let (_, function) = rest.split_once("decltype(")?;
    Some((name, function.split_once(')')?.0))
}

/// The functions that are kernels, and what each is called with.
pub(crate) fn kernels(text: &str) -> Vec<(String, String)> {
    let text: String = text
        .lines()
        .flat_map(|line| [without_comment(line), "\n"])
        .collect();
    let declarations = text.split("[[kernel]] void ").skip(1);
    let kernel = |declaration: &str| {
        let (name, rest) = declaration.split_once('(')?;
        let (parameters, _) = rest.split_once(") {")?;
        let arguments: Option<Vec<_>> = parameters.split(',').map(argument).collect();
        Some((name.to_owned(), arguments?.join(", ")))
    };
    declarations
        .map(|declaration| kernel(declaration).unwrap_or_else(|| panic!("not a kernel: {declaration}")))
        .collect()
}

/// The argument for `TYPE NAME [[ATTRIBUTE]]`.
fn argument(parameter: &str) -> Option<String> {
    let (declaration, attribute) = parameter.split_once("[[")?;
    let (attribute, _) = attribute.split_once("]]")?;
    let kind = if declaration.contains('&') {
        "Reference"
    } else {
        "Pointer"
    };
    Some(match attribute.strip_prefix("buffer(") {
        Some(index) => format!("{kind}{{{}}}", index.strip_suffix(')')?),
        None => format!("running->{attribute}"),
    })
}

#[test]
fn what_metal_adds_is_rewritten() {
    let lines = [
        ("#include <metal_stdlib>", ""),
        (
            "constant bool a [[function_constant(3)]];  // b",
            "static host::FunctionConstant<bool, 3> a;",
        ),
        (
            "  threadgroup S a[B * 4];",
            "static host::Shared<S, B * 4> a; a.enter();",
        ),
        ("    threadgroup float* sums,", "    threadgroup float* sums,"),
        ("constant constexpr uint B = 6;", "constant constexpr uint B = 6;"),
    ];
    for (line, expected) in lines {
        assert_eq!(rewritten(line), format!("{expected}\n"));
    }
    let text = "template <typename T>\n[[kernel]] void a(\n    device const T* x [[buffer(0)]],  // b, c\n    \
                constant C& c [[buffer(2)]],\n    uint i [[thread_index_in_simdgroup]]) {}\n\
                template [[host_name(\"a_f32\")]] [[kernel]] decltype(a<float>) a<float>;\n\
                [[kernel]] void d(device T* x [[buffer(1)]]) {}\n";
    let table = table(text);
    let has = |entry: &str| assert!(table.contains(entry), "{table}");
    has("{\"a_f32\", [] { a<float>(Pointer{0}, Reference{2}, running->thread_index_in_simdgroup); }},");
    has("{\"d\", [] { d(Pointer{1}); }},");
}
