//! Accepts connections, so many at a time. One that does not send a request in time is closed, so that nobody can keep the
//! server busy.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use futures_util::future::{Either, select};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::error::ApiError;

/// The longest time between two requests of a connection, and the longest for the headers of one.
const LONGEST_HEADERS: Duration = Duration::from_secs(30);
/// The longest for the headers of a request that is refused because there are too many connections.
const LONGEST_REFUSED: Duration = Duration::from_secs(2);
/// The most connections beyond the limit that are told so. More are closed at once.
const MOST_REFUSED: usize = 64;
/// How long the server waits where it can accept no connection, such as with too many open files.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Serves at most `most` connections at a time until `stopped` is over, and then for at most `farewell` those who are
/// still connected.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    most: usize,
    stopped: impl Future<Output = ()>,
    farewell: Duration,
) {
    let (stop, stopping) = watch::channel(());
    let (places, refusals) = [most, MOST_REFUSED]
        .map(|places| Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))))
        .into();
    let accepting = async move {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    if let Ok(place) = places.clone().try_acquire_owned() {
                        let (router, stopping) = (router.clone(), stopping.clone());
                        tokio::spawn(connection(stream, address, router, stopping, place));
                    } else if let Ok(place) = refusals.clone().try_acquire_owned() {
                        tokio::spawn(refuse(stream, place));
                    }
                }
                Err(error) => {
                    tracing::debug!("a connection cannot be accepted: {error}");
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
            }
        }
    };
    {
        let (accepting, stopped) = (pin!(accepting), pin!(stopped));
        let _: Either<(Infallible, _), _> = select(accepting, stopped).await;
    }
    // Nobody may be connected any more.
    let _ = stop.send(());
    // Those who listen to events are connected for as long as they like.
    let _ = tokio::time::timeout(farewell, stop.closed()).await;
}

/// Answers the requests of one connection, until it ends or the server stops. It has its `place` until then.
async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(LONGEST_HEADERS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = match select(connection.as_mut(), pin!(stopping.changed())).await {
        Either::Left((ended, _)) => ended,
        Either::Right(_) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection has ended: {error}");
    }
}

/// Answers one request of a connection with the error that there are too many.
async fn refuse(stream: TcpStream, _place: OwnedSemaphorePermit) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let error = ApiError {
            retry_after: Some(5),
            ..ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_connections",
                "too many connections are open",
            )
        };
        Ok::<_, Infallible>(error.at(request.uri().path()))
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(LONGEST_REFUSED)
        .keep_alive(false);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!("a connection beyond the limit has ended: {error}");
    }
}
