"""A feed as a first version would have it: FastAPI, SQLModel's async session, one SQL query for each read.

Run by ``benchmarks/feed_read.py`` with our libraries. The same answer as Fanfold's, field by field: posts of those the
reader follows, newest twenty, with their authors, pictures, counts, and whether the reader liked them.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import jwt
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy import JSON, Column, func
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

KEYS: dict[str, Any] = {}


class User(SQLModel, table=True):
    __tablename__ = "bench_user"
    id: UUID = Field(primary_key=True)
    username: str
    display_name: str
    picture_url: str | None = None


class Post(SQLModel, table=True):
    __tablename__ = "bench_post"
    id: UUID = Field(primary_key=True)
    author_id: UUID = Field(index=True)
    caption: str
    images: list[dict[str, Any]] = Field(sa_column=Column(JSON))
    created_at: datetime


class Follow(SQLModel, table=True):
    __tablename__ = "bench_follow"
    follower_id: UUID = Field(primary_key=True)
    followee_id: UUID = Field(primary_key=True)


class Activity(SQLModel, table=True):
    __tablename__ = "bench_activity"
    id: int | None = Field(default=None, primary_key=True)
    kind: str
    post_id: UUID = Field(index=True)
    user_id: UUID


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=16)
    KEYS.update({key.key_id: key.key for key in jwt.PyJWKSet.from_dict(json.loads(os.environ["JWKS"])).keys})
    app.state.engine = engine
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def reader(authorization: Annotated[str, Header()] = "") -> UUID:
    try:
        token = authorization.removeprefix("Bearer ")
        claims = jwt.decode(token, KEYS[jwt.get_unverified_header(token)["kid"]], algorithms=["EdDSA"])
    except (jwt.PyJWTError, KeyError) as error:
        raise HTTPException(401) from error
    return UUID(claims["sub"])


@app.get("/v1/feed")
async def feed(user_id: Annotated[UUID, Depends(reader)], limit: int = 20) -> dict[str, Any]:
    engine: AsyncEngine = app.state.engine
    async with AsyncSession(engine) as session:
        followees = select(Follow.followee_id).where(Follow.follower_id == user_id)
        newest = (
            select(Post, User)
            .join(User, col(User.id) == col(Post.author_id))
            .where(col(Post.author_id).in_(followees))
            .order_by(col(Post.id).desc())
            .limit(limit)
        )
        rows = (await session.exec(newest)).all()
        ids = [post.id for post, _ in rows]
        counted = (
            select(Activity.post_id, Activity.kind, func.count())
            .where(col(Activity.post_id).in_(ids))
            .group_by(col(Activity.post_id), col(Activity.kind))
        )
        counts = {(post_id, kind): count for post_id, kind, count in await session.exec(counted)}
        mine = select(Activity.post_id).where(
            col(Activity.post_id).in_(ids), Activity.user_id == user_id, Activity.kind == "like"
        )
        liked = set(await session.exec(mine))
    items = [
        {
            "id": post.id,
            "author": author.model_dump(),
            "caption": post.caption,
            "images": post.images,
            "like_count": counts.get((post.id, "like"), 0),
            "comment_count": counts.get((post.id, "comment"), 0),
            "liked_by_me": post.id in liked,
            "created_at": post.created_at,
        }
        for post, author in rows
    ]
    return {"items": items, "next_cursor": None}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=False, log_level="warning")
