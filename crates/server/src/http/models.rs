//! `/api/models`: what requests may name.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sd_catalog::presets::ALL;
use sd_catalog::styles;
use sd_catalog::{Catalog, Location};
use sd_pipeline::bundle::Kind;
use sd_pipeline::scheduler::{SamplerKind, ScheduleKind};
use serde_json::{Value, json};

use super::Shared;
use super::body::blocking;
use super::error::{Answer, ApiError, json_response};

pub(super) async fn models(State(server): State<Shared>) -> Answer<Response> {
    let names = blocking(move || Ok::<_, ApiError>(names(&server))).await?;
    Ok(json_response(StatusCode::OK, &names))
}

fn names(server: &Shared) -> Value {
    let catalog = server.terms().catalog();
    let own = server.options.configuration.presets.keys();
    let own = own.map(|name| json!({ "name": name, "model": null, "available": true }));
    let presets = ALL.iter().map(|preset| {
        json!({ "name": preset.name, "model": preset.model, "available": is_here(&catalog, preset.model) })
    });
    let models = here(&catalog, Kind::Model).into_iter();
    let models = models.map(|name| {
        let facts = catalog.local_model(&name).ok();
        let facts = facts.and_then(|files| server.model_facts.of(&files));
        let (family, bytes) = facts.map(|facts| (facts.family, facts.bytes)).unzip();
        json!({ "name": name, "family": family, "bytes": bytes })
    });
    json!({
        "models": models.collect::<Vec<_>>(),
        "presets": own.chain(presets).collect::<Vec<Value>>(),
        "loras": here(&catalog, Kind::Lora),
        "controlnets": here(&catalog, Kind::ControlNet),
        "upscalers": here(&catalog, Kind::Upscaler),
        "samplers": SamplerKind::ALL.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "schedulers": ScheduleKind::ALL.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "styles": styles::ALL.iter().map(|style| style.name).collect::<Vec<_>>(),
    })
}

/// The names of what is completely on this machine and can be used as `kind`.
pub(crate) fn here(catalog: &Catalog, kind: Kind) -> Vec<String> {
    let mut names = catalog.names(kind);
    names.retain(|name| match catalog.locate(kind, name) {
        Ok(Location::BuiltIn) => true,
        Ok(Location::Here(path)) => kind_of(&path).is_none_or(|found| found == kind),
        _ => false,
    });
    names
}

fn is_here(catalog: &Catalog, model: &str) -> bool {
    matches!(
        catalog.locate(Kind::Model, model),
        Ok(Location::BuiltIn | Location::Here(_))
    )
}

/// What a repository of the cache is, as far as its files show.
fn kind_of(path: &std::path::Path) -> Option<Kind> {
    if !path.is_dir() {
        return None;
    }
    match path.join("model_index.json").exists() {
        true => Some(Kind::Model),
        false if path.join("config.json").exists() => Some(Kind::ControlNet),
        false => None,
    }
}
