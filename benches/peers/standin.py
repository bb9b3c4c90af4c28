"""A stand-in for the original service: FastAPI, uvicorn and sqlite3, written for this comparison from the HTTP contract.

It is not the original's code. It does what a webhook of that shape does: verify, validate with pydantic, and insert in a
thread, with a connection per call and SQLite's defaults (a rollback journal, synchronous=FULL).
"""

import datetime
import hashlib
import hmac
import json
import logging
import os
import sqlite3
import sys
import time
import uuid

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

SECRET = os.environ["WEBHOOK_SECRET"].encode()
DATABASE = os.environ["DATABASE"]
TABLE = """CREATE TABLE IF NOT EXISTS messages (message_id TEXT PRIMARY KEY, from_msisdn TEXT NOT NULL, to_msisdn TEXT NOT NULL,
  ts TEXT NOT NULL, text TEXT, created_at TEXT NOT NULL)"""
# A write waits this long for another one's lock; all of them queue for one file.
LOCK_SECONDS = 30

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
log = logging.getLogger("standin")
app = FastAPI()


class Message(BaseModel):
    message_id: str = Field(min_length=1)
    from_: str = Field(alias="from", pattern=r"^\+\d+$")
    to: str = Field(pattern=r"^\+\d+$")
    ts: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")
    text: str | None = Field(default=None, max_length=4096)


def connect():
    return sqlite3.connect(DATABASE, timeout=LOCK_SECONDS)


with connect() as first:
    first.execute(TABLE)


def insert(message):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    row = (message.message_id, message.from_, message.to, message.ts, message.text, now)
    connection = connect()
    try:
        with connection:
            connection.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)", row)
        return "created"
    except sqlite3.IntegrityError:
        return "duplicate"
    finally:
        connection.close()


@app.post("/webhook")
async def webhook(request: Request):
    began = time.perf_counter()
    body = await request.body()
    expected = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("x-signature", "")):
        raise HTTPException(401, "invalid signature")
    message = Message.model_validate_json(body)
    result = await run_in_threadpool(insert, message)
    log.info(
        json.dumps(
            {
                "level": "INFO",
                "request_id": str(uuid.uuid4()),
                "path": "/webhook",
                "status": 200,
                "latency_ms": round((time.perf_counter() - began) * 1000, 2),
                "message_id": message.message_id,
                "result": result,
            }
        )
    )
    return {"status": "ok"}


@app.get("/health/live")
async def live():
    return {"status": "ok"}
