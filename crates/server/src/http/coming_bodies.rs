//! How much memory the bodies of all requests that are just coming may take together.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::{StreamExt, stream};

/// The bytes of the bodies that have come so far of all requests whose end has not come yet. A body is held in memory until
/// it can be parsed, so many slow clients could fill the memory with bodies each of which is short enough.
#[derive(Debug, Clone)]
pub(super) struct ComingBodies {
    bytes: Arc<AtomicU64>,
    most: u64,
}

impl ComingBodies {
    /// At most `most` bytes at a time.
    pub(super) fn new(most: u64) -> Self {
        Self {
            bytes: Arc::default(),
            most,
        }
    }

    /// The body, which ends with an error of the kind [`io::ErrorKind::ResourceBusy`] as soon as all bodies together have
    /// too many bytes.
    fn counted(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let coming = ComingBody {
            bodies: self.clone(),
            bytes: 0,
        };
        let state = (body.into_data_stream(), coming);
        let chunks = stream::try_unfold(state, |(mut chunks, mut coming)| async move {
            match chunks.next().await {
                None => Ok(None),
                Some(Ok(chunk)) => {
                    coming.count(chunk.len() as u64)?;
                    Ok(Some((chunk, (chunks, coming))))
                }
                Some(Err(error)) => Err(io::Error::other(error)),
            }
        });
        Body::from_stream(chunks)
    }
}

/// A body that is coming. Its bytes no longer count once it is dropped.
#[derive(Debug)]
struct ComingBody {
    bodies: ComingBodies,
    bytes: u64,
}

impl ComingBody {
    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes += bytes;
        let all = self.bodies.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match all > self.bodies.most {
            true => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "too many long requests come at a time",
            )),
            false => Ok(()),
        }
    }
}

impl Drop for ComingBody {
    fn drop(&mut self) {
        self.bodies.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Counts the body of a request.
pub(super) async fn count(State(bodies): State<ComingBodies>, request: Request, next: Next) -> Response {
    next.run(request.map(|body| bodies.counted(body))).await
}

#[cfg(test)]
mod tests {
    use axum::body::{Bytes, to_bytes};

    use super::*;

    fn body_of(chunks: usize) -> Body {
        let chunk = || Ok::<_, io::Error>(Bytes::from_static(&[0; 10]));
        Body::from_stream(stream::iter((0..chunks).map(move |_| chunk())))
    }

    #[test]
    fn all_bodies_count_while_they_come() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bodies = ComingBodies::new(50);
            let mut slow = bodies.counted(body_of(4)).into_data_stream();
            for _ in 0..3 {
                slow.next().await.unwrap().unwrap();
            }
            assert_eq!(to_bytes(bodies.counted(body_of(2)), 100).await.unwrap().len(), 20);
            let error = to_bytes(bodies.counted(body_of(3)), 100).await.unwrap_err();
            assert_eq!(super::super::body::unread(&error).code, "busy");
            // Those that have come, were refused or whose client has gone away take nothing.
            assert_eq!(bodies.bytes.load(Ordering::Relaxed), 30);
            drop(slow);
            assert_eq!(bodies.bytes.load(Ordering::Relaxed), 0);
            assert_eq!(to_bytes(bodies.counted(body_of(5)), 100).await.unwrap().len(), 50);
        });
    }
}
