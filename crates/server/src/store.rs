//! [`Store`]: the jobs on disk, in SQLite. A job that was added is there after a kill or a loss of power.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::job::{Job, JobError, JobId, JobRequest, PlanView, ResultImage, State};
use crate::lock::lock;
use crate::queue::Waiting;
use crate::{Error, Result};

/// Incremented when the tables change.
const VERSION: i64 = 1;
/// A job with which the server was killed so many times is not begun again: it may be what kills it.
const MOST_KILLS: i64 = 10;
/// How long another process is waited for, such as one that makes a copy.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        user TEXT NOT NULL,
        priority INTEGER NOT NULL,
        state TEXT NOT NULL,
        model TEXT NOT NULL,
        created INTEGER NOT NULL,
        started INTEGER,
        finished INTEGER,
        bytes INTEGER NOT NULL DEFAULT 0,
        begun INTEGER NOT NULL DEFAULT 0,
        request TEXT NOT NULL,
        rest TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
";
const COLUMNS: &str = "id, user, priority, state, model, created, started, finished, request, rest";

/// The jobs on disk.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Mutex<Connection>,
    /// SQLite's write-ahead log, which has what was committed last.
    log: PathBuf,
}

/// What no query asks for.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Rest {
    plan: Option<PlanView>,
    images: Vec<ResultImage>,
    warnings: Vec<String>,
    error: Option<JobError>,
}

/// Which jobs a list has, newest first.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// In one of these states; in any, if there are none.
    pub(crate) states: Vec<State>,
    /// Those of one user.
    pub(crate) user: Option<String>,
    /// Added before this one.
    pub(crate) before: Option<JobId>,
    pub(crate) limit: usize,
}

impl Store {
    /// The store in `file`, which is made if it is not there.
    ///
    /// # Errors
    /// It is none, is of a later version, or cannot be written.
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let connection = Connection::open(file)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Readers do not wait for the writer, and what was committed survives a loss of power.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version > VERSION {
            return Err(Error::Folder {
                path: file.to_owned(),
                source: std::io::Error::other("a newer version of this program wrote it"),
            });
        }
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        Ok(Self {
            connection: Mutex::new(connection),
            log: log.into(),
        })
    }

    /// Adds a job that waits. When this returns, it is on disk.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn add(&self, job: &Job) -> Result<()> {
        let rest = Rest {
            plan: job.plan.clone(),
            warnings: job.warnings.clone(),
            ..Rest::default()
        };
        lock(&self.connection)
            .prepare_cached(
                "INSERT INTO jobs (id, user, priority, state, model, created, request, rest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                job.id.as_str(),
                job.user,
                job.priority,
                job.state.name(),
                job.model,
                job.created,
                text(&job.request),
                text(&rest),
            ])?;
        Ok(())
    }

    /// Begins the job `id` at `time`, if it waits. After a loss of power it may wait again, so that the disk is not waited
    /// for.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn begin(&self, id: &JobId, time: i64) -> Result<Option<Job>> {
        let begun = unsynced(&lock(&self.connection), |connection| {
            connection
                .prepare_cached(
                    "UPDATE jobs SET state = 'running', started = ?2, begun = begun + 1
                     WHERE id = ?1 AND state = 'queued'",
                )?
                .execute(params![id.as_str(), time])
        });
        match begun? {
            0 => Ok(None),
            _ => self.job(id),
        }
    }

    /// Writes what became of a job, whose files take `bytes`. When this returns, it is on disk.
    ///
    /// # Errors
    /// The disk fails.
    #[cfg(feature = "cluster")]
    pub(crate) fn update(&self, job: &Job, bytes: u64) -> Result<()> {
        write_outcome(&lock(&self.connection), job, bytes)?;
        Ok(())
    }

    /// As `update`, without waiting for the disk: after a loss of power before the next [`sync`](Self::sync) the job is as
    /// it was, and runs again to the same images.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn update_unsynced(&self, job: &Job, bytes: u64) -> Result<()> {
        unsynced(&lock(&self.connection), |connection| {
            write_outcome(connection, job, bytes)
        })?;
        Ok(())
    }

    /// Waits until everything that was written is on disk. Others read and write meanwhile.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn sync(&self) -> Result<()> {
        let synced = File::options()
            .write(true)
            .open(&self.log)
            .and_then(|log| log.sync_data());
        match synced {
            // Without a log, everything is in the data base, which SQLite syncs then.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Folder {
                path: self.log.clone(),
                source: error,
            }),
            _ => Ok(()),
        }
    }

    /// Cancels a job if it waits, and returns whether it did.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn cancel_waiting(&self, id: &JobId) -> Result<bool> {
        let changed = lock(&self.connection)
            .prepare_cached(
                "UPDATE jobs SET state = 'cancelled', finished = ?2 WHERE id = ?1 AND state = 'queued'",
            )?
            .execute(params![id.as_str(), now()])?;
        Ok(changed > 0)
    }

    /// The job `id`.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn job(&self, id: &JobId) -> Result<Option<Job>> {
        Ok(lock(&self.connection)
            .prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"))?
            .query_row([id.as_str()], read)
            .optional()?)
    }

    /// The jobs of a list, the newest first.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn list(&self, filter: &Filter) -> Result<Vec<Job>> {
        // The names of states are this program's own.
        let states: Vec<String> = filter
            .states
            .iter()
            .map(|state| format!("'{}'", state.name()))
            .collect();
        let states = match states.is_empty() {
            true => String::new(),
            false => format!("AND state IN ({})", states.join(", ")),
        };
        let query = format!(
            "SELECT {COLUMNS} FROM jobs
             WHERE number < coalesce((SELECT number FROM jobs WHERE id = ?1), 9223372036854775807)
                AND (?3 IS NULL OR user = ?3) {states}
             ORDER BY number DESC LIMIT ?2"
        );
        let connection = lock(&self.connection);
        let mut statement = connection.prepare_cached(&query)?;
        let before = filter.before.as_ref().map(JobId::as_str);
        let rows = statement.query_map(params![before, filter.limit as i64, filter.user], read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The jobs that wait, in the order in which they came.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn waiting(&self) -> Result<Vec<Waiting>> {
        let connection = lock(&self.connection);
        let mut statement = connection.prepare_cached(
            "SELECT id, user, priority, model, created FROM jobs WHERE state = 'queued' ORDER BY number",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Waiting {
                id: id(row, 0)?,
                user: row.get(1)?,
                priority: row.get(2)?,
                model: row.get(3)?,
                created: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How many jobs of `user` wait.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn waiting_of(&self, user: &str) -> Result<usize> {
        let count: i64 = lock(&self.connection)
            .prepare_cached("SELECT count(*) FROM jobs WHERE state = 'queued' AND user = ?1")?
            .query_row([user], |row| row.get(0))?;
        Ok(count as usize)
    }

    /// How many jobs wait.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn waiting_count(&self) -> Result<usize> {
        let count: i64 = lock(&self.connection)
            .prepare_cached("SELECT count(*) FROM jobs WHERE state = 'queued'")?
            .query_row([], |row| row.get(0))?;
        Ok(count as usize)
    }

    /// The place in the queue of the job `id`, from 1: behind those of a higher priority, and the older ones of its own.
    /// `None` if it does not wait.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn position(&self, id: &JobId) -> Result<Option<usize>> {
        let position: i64 = lock(&self.connection)
            .prepare_cached(
                "SELECT count(*) FROM jobs AS own JOIN jobs AS other
                    ON other.state = 'queued' AND (other.priority > own.priority
                        OR other.priority = own.priority AND other.number <= own.number)
                 WHERE own.id = ?1 AND own.state = 'queued'",
            )?
            .query_row([id.as_str()], |row| row.get(0))?;
        Ok((position > 0).then_some(position as usize))
    }

    /// Whether there is a job `id`.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn has(&self, id: &JobId) -> Result<bool> {
        Ok(lock(&self.connection)
            .prepare_cached("SELECT 1 FROM jobs WHERE id = ?1")?
            .exists([id.as_str()])?)
    }

    /// Lets the jobs that ran when the server was killed wait again, at the places that they had. One with which it was
    /// killed many times fails.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn requeue_running(&self) -> Result<usize> {
        let message = format!("the server was killed {MOST_KILLS} times while this job ran");
        let rest = Rest {
            error: Some(JobError::new("killed", message)),
            ..Rest::default()
        };
        let connection = lock(&self.connection);
        connection.execute(
            "UPDATE jobs SET state = 'failed', finished = ?1, rest = ?2 WHERE state = 'running' AND begun >= ?3",
            params![now(), text(&rest), MOST_KILLS],
        )?;
        Ok(connection.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'", [])?)
    }

    /// How many jobs there are in each state.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn counts(&self) -> Result<Vec<(State, u64)>> {
        let connection = lock(&self.connection);
        let mut statement = connection.prepare_cached("SELECT count(*) FROM jobs WHERE state = ?1")?;
        let count = |state: State| {
            let count: i64 = statement.query_row([state.name()], |row| row.get(0))?;
            Ok((state, count as u64))
        };
        State::ALL.into_iter().map(count).collect()
    }

    /// Ended jobs to remove: those that ended before `time`, and then the oldest until the others take at most `bytes`.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn outdated(&self, time: i64, bytes: u64) -> Result<Vec<JobId>> {
        let connection = lock(&self.connection);
        let mut statement = connection.prepare_cached(
            "SELECT id, finished, sum(bytes) OVER (ORDER BY number DESC) FROM jobs
             WHERE state IN ('done', 'failed', 'cancelled') ORDER BY number",
        )?;
        let rows = statement.query_map([], |row| {
            let finished: Option<i64> = row.get(1)?;
            let with_later: i64 = row.get(2)?;
            let is_old = finished.is_some_and(|finished| finished < time) || with_later as u64 > bytes;
            Ok(is_old.then_some(id(row, 0)?))
        })?;
        let found: rusqlite::Result<Vec<Option<JobId>>> = rows.collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// Removes an ended job, and returns whether there was one.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn remove_ended(&self, id: &JobId) -> Result<bool> {
        let removed = lock(&self.connection)
            .prepare_cached("DELETE FROM jobs WHERE id = ?1 AND state IN ('done', 'failed', 'cancelled')")?
            .execute([id.as_str()])?;
        Ok(removed > 0)
    }
}

/// Writes by `write` without waiting for the disk. A loss of power may undo it, but nothing that was written before.
fn unsynced<T>(
    connection: &Connection,
    write: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let written = write(connection);
    connection.pragma_update(None, "synchronous", "FULL")?;
    written
}

fn write_outcome(connection: &Connection, job: &Job, bytes: u64) -> rusqlite::Result<usize> {
    let rest = Rest {
        plan: job.plan.clone(),
        images: job.images.clone(),
        warnings: job.warnings.clone(),
        error: job.error.clone(),
    };
    connection
        .prepare_cached(
            "UPDATE jobs SET state = ?2, started = ?3, finished = ?4, bytes = ?5, rest = ?6, begun = 0
             WHERE id = ?1",
        )?
        .execute(params![
            job.id.as_str(),
            job.state.name(),
            job.started,
            job.finished,
            bytes as i64,
            text(&rest),
        ])
}

/// The time now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as i64)
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    // What another version wrote may have fields that this one does not know. The job is still listed, and fails when
    // its turn comes.
    let rest: Rest = json(row, 9)?.unwrap_or_default();
    let state: String = row.get(3)?;
    Ok(Job {
        id: id(row, 0)?,
        user: row.get(1)?,
        priority: row.get(2)?,
        state: State::named(&state).ok_or_else(|| wrong(3, format!("a job is `{state}`")))?,
        model: row.get(4)?,
        created: row.get(5)?,
        started: row.get(6)?,
        finished: row.get(7)?,
        request: json::<JobRequest>(row, 8)?.unwrap_or_default(),
        plan: rest.plan,
        images: rest.images,
        warnings: rest.warnings,
        error: rest.error,
    })
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<JobId> {
    let text: String = row.get(column)?;
    JobId::parse(&text).ok_or_else(|| wrong(column, format!("`{text}` is no id")))
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: String = row.get(column)?;
    Ok(serde_json::from_str(&text).ok())
}

fn wrong(column: usize, reason: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, reason.into())
}

#[cfg(test)]
mod tests;
