//! `generate doctor`: what this machine can do, one fact a line.

mod models;

use sd_pipeline::{Bytes, DeviceKind, Limit, Machine, MetalGpu, UsableDevice};
use serde_json::{Value, json};

use crate::arguments::DoctorArguments;
use crate::{terminal, wrapping};

/// Prints the facts. Nothing is downloaded, and no server is asked.
pub(crate) fn run(arguments: &DoctorArguments) {
    let mut facts = of_machine(&Machine::look());
    facts.extend(models::facts());
    // What follows the names is in one column.
    let width = facts.iter().map(|fact| fact.name.len()).max().unwrap_or_default();
    let columns = wrapping::columns();
    for Fact { name, text, figures } in facts {
        if arguments.json {
            terminal::print_json(json!({ "event": "fact", "fact": name, "text": text, "figures": figures }));
        } else {
            terminal::print(&wrapping::row(&name, width, &text, columns));
        }
    }
}

/// One line.
struct Fact {
    name: String,
    /// For people.
    text: String,
    /// For programs: the same as an object.
    figures: Value,
}

fn fact(name: impl Into<String>, text: impl Into<String>, figures: Value) -> Fact {
    Fact {
        name: name.into(),
        text: text.into(),
        figures,
    }
}

fn of_machine(machine: &Machine) -> Vec<Fact> {
    let Machine {
        system,
        architecture,
        chip,
        memory,
        ..
    } = machine;
    let mut facts = vec![fact(
        "system",
        format!("{system}, {architecture}"),
        json!({ "system": system, "architecture": architecture }),
    )];
    if let Some(chip) = chip {
        facts.push(fact("chip", chip, json!({ "name": chip })));
    }
    facts.push(of_cores(machine));
    facts.push(fact(
        "memory",
        format!("{}, {} available", memory.system_total, memory.system_available),
        json!({ "total": memory.system_total, "available": memory.system_available }),
    ));
    if let Some((name, device)) = machine.default_device() {
        facts.push(fact("default device", name, json!({ "device": name })));
        facts.push(fact(
            "default budget",
            budget(device),
            json!({ "bytes": device.budget, "from": device.budget_from }),
        ));
    }
    for report in machine.devices.iter().rev() {
        match &report.state {
            Ok(device) => facts.extend(of_device(report.name, device)),
            Err(error) => {
                let message = error.to_string();
                let reason = message.split_once(" cannot be used: ");
                let reason = reason.map_or(message.as_str(), |(_, reason)| reason);
                let figures = json!({ "usable": false, "reason": reason });
                facts.push(fact(report.name, format!("cannot be used: {reason}"), figures));
            }
        }
    }
    facts
}

/// The CPU.
fn of_cores(machine: &Machine) -> Fact {
    let Machine {
        cores,
        threads,
        instruction_sets,
        ..
    } = machine;
    let mut parts = Vec::new();
    parts.extend(cores.map(|cores| format!("{cores} cores")));
    parts.push(format!("{threads} threads"));
    parts.extend((!instruction_sets.is_empty()).then(|| instruction_sets.join(" ")));
    fact(
        "cores",
        parts.join(", "),
        json!({ "cores": cores, "threads": threads, "instruction_sets": instruction_sets }),
    )
}

/// A device and its own default budget.
fn of_device(name: &str, device: &UsableDevice) -> Vec<Fact> {
    let usable = |text: String, more: Value| {
        let mut figures =
            json!({ "usable": true, "budget": device.budget, "budget_from": device.budget_from });
        if let (Value::Object(figures), Value::Object(more)) = (&mut figures, more) {
            figures.extend(more);
        }
        fact(name, text, figures)
    };
    match &device.kind {
        DeviceKind::Cpu => vec![usable(format!("usable, budget {}", budget(device)), json!({}))],
        DeviceKind::Discrete { gpu, memory } => {
            let gpu = gpu.as_deref().unwrap_or("a GPU without a name");
            let of_memory = memory.map(|memory| format!(", {memory}")).unwrap_or_default();
            let text = format!("{gpu}{of_memory}, budget {}", budget(device));
            vec![usable(text, json!({ "name": gpu, "memory": memory }))]
        }
        DeviceKind::Metal { gpu, wired_limit } => {
            let text = format!("{} ({}), budget {}", gpu.name, gpu.architecture, budget(device));
            let more = json!({ "name": gpu.name, "architecture": gpu.architecture });
            let mut facts = vec![usable(text, more)];
            facts.extend(of_metal(gpu, *wired_limit));
            facts
        }
        _ => vec![usable("usable".to_owned(), json!({}))],
    }
}

fn of_metal(gpu: &MetalGpu, wired_limit: Option<Bytes>) -> [Fact; 4] {
    let bytes = |name: &str, bytes: Bytes| fact(name, bytes.to_string(), json!({ "bytes": bytes }));
    let native = gpu.has_native_bf16();
    let bf16 = match native {
        Some(true) => "native",
        Some(false) => "not native: widened to 32 bits",
        None => "unknown for this architecture",
    };
    let wired = match wired_limit {
        Some(limit) => format!("{limit}, set with iogpu.wired_limit_mb"),
        None => "the system's own".to_owned(),
    };
    [
        bytes("metal working set", Bytes(gpu.working_set)),
        bytes("metal longest buffer", Bytes(gpu.longest_buffer)),
        fact("metal bf16", bf16, json!({ "native": native })),
        fact("metal wired limit", wired, json!({ "bytes": wired_limit })),
    ]
}

/// A budget and what it comes from.
fn budget(device: &UsableDevice) -> String {
    let because: &Limit = &device.budget_from;
    format!("{}, from {because}", device.budget)
}
