//! The page: files that are built into the program.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use super::{Shared, openapi};

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files of the page: their addresses, types and contents.
const FILES: [(&str, &str, &str); 14] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../page/index.html"),
    ),
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("../page/page.css"),
    ),
    ("/icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
    ("/page.js", SCRIPT, include_str!("../page/page.js")),
    ("/requests.js", SCRIPT, include_str!("../page/requests.js")),
    ("/elements.js", SCRIPT, include_str!("../page/elements.js")),
    ("/jobs.js", SCRIPT, include_str!("../page/jobs.js")),
    ("/queue.js", SCRIPT, include_str!("../page/queue.js")),
    ("/gallery.js", SCRIPT, include_str!("../page/gallery.js")),
    ("/memory.js", SCRIPT, include_str!("../page/memory.js")),
    ("/settings.js", SCRIPT, include_str!("../page/settings.js")),
    ("/picture.js", SCRIPT, include_str!("../page/picture.js")),
    ("/mask.js", SCRIPT, include_str!("../page/mask.js")),
    ("/plan.js", SCRIPT, include_str!("../page/plan.js")),
];
/// What a load balancer asks.
const HEALTH: [&str; 2] = ["/health", "/ready"];

pub(super) fn routes() -> Router<Shared> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, text)| {
            let file = move || async move {
                let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
                (headers, text).into_response()
            };
            router.route(path, get(file))
        })
}

/// Whether an address needs no key: the page, the signs of life, the description of the interfaces, and images, whose addresses nobody can guess.
pub(super) fn is_public(path: &str) -> bool {
    let is_image = || {
        path.strip_prefix("/api/jobs/")
            .and_then(|rest| rest.split_once("/images/"))
            .is_some_and(|(_, index)| !index.contains('/'))
    };
    FILES.iter().any(|(own, ..)| *own == path)
        || HEALTH.contains(&path)
        || path == openapi::PATH
        || is_image()
}
