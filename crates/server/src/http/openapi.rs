//! `/api/openapi.json`: the interfaces, described for programs.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// The description.
const TEXT: &str = include_str!("../openapi.json");
/// Where it is. It needs no key.
pub(super) const PATH: &str = "/api/openapi.json";

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], TEXT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use crate::job::JobRequest;

    use super::*;

    /// The files in which routes are made.
    const SOURCES: [&str; 3] = [
        include_str!("mod.rs"),
        include_str!("openai/mod.rs"),
        include_str!("webui/mod.rs"),
    ];

    /// The methods and addresses of all routes but those of the page's files.
    fn routes() -> BTreeSet<String> {
        let lines = SOURCES.iter().flat_map(|source| source.split(".route(").skip(1));
        lines
            .flat_map(|line| {
                let (path, handlers) = line.split_once(',').unwrap();
                let path = path.trim().trim_matches('"').replace("{*", "{");
                let path = path.replace("openapi::PATH", PATH);
                let handlers = handlers.lines().next().unwrap_or_default().to_owned();
                let methods = ["get(", "post(", "delete("];
                let methods = methods
                    .into_iter()
                    .filter(move |method| handlers.contains(method));
                methods.map(move |method| format!("{} {path}", method.trim_end_matches('(')))
            })
            .collect()
    }

    #[test]
    fn every_route_is_described() {
        let description: Value = serde_json::from_str(TEXT).unwrap();
        let paths = description["paths"].as_object().unwrap();
        let described = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{method} {path}"))
        });
        assert_eq!(described.collect::<BTreeSet<_>>(), routes());
        assert!(routes().len() > 40);
    }

    #[test]
    fn every_field_is_described() {
        let description: Value = serde_json::from_str(TEXT).unwrap();
        let fields = description["components"]["schemas"]["JobRequest"]["properties"].as_object();
        let fields: BTreeSet<&str> = fields.unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, BTreeSet::from(JobRequest::FIELDS));
    }

    #[test]
    fn references_lead_somewhere() {
        let description: Value = serde_json::from_str(TEXT).unwrap();
        let references = TEXT.split("\"#").skip(1);
        for reference in references.map(|rest| rest.split('"').next().unwrap()) {
            assert!(description.pointer(reference).is_some(), "{reference}");
        }
    }
}
