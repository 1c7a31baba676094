from __future__ import annotations

from uuid import UUID

import pytest

from fanfold.contracts.events import AnyEvent, Commented, Followed, Liked, PostCreated
from fanfold.contracts.ids import new_id
from fanfold.notification.drafts import Draft, draft, mentions
from fanfold.notification.repository import NONE, State
from fanfold.notification.routes import entity_tag
from fanfold.notification.service import Asked

ADA, BOB, POST, COMMENT, ACTIVITY = (new_id() for _ in range(5))


def liked(by: UUID, owner: UUID, parent_type: str = "post") -> Liked:
    parent = POST if parent_type == "post" else COMMENT
    return Liked(
        activity_id=ACTIVITY, user_id=by, owner_id=owner, parent_type=parent_type, parent_id=parent, post_id=POST
    )


def commented(by: UUID, owner: UUID) -> Commented:
    return Commented(
        activity_id=ACTIVITY, comment_id=COMMENT, user_id=by, owner_id=owner, post_id=POST, excerpt="Lovely"
    )


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (liked(ADA, BOB), Draft(BOB, "like", ADA, POST, POST)),
        (liked(ADA, BOB, "comment"), Draft(BOB, "like", ADA, COMMENT, POST, COMMENT)),
        (commented(ADA, BOB), Draft(BOB, "comment", ADA, COMMENT, POST, COMMENT)),
        (Followed(follower_id=ADA, followee_id=BOB), Draft(BOB, "follow", ADA, ADA)),
    ],
)
def test_an_event_tells_the_one_it_concerns(event: AnyEvent, told: Draft) -> None:
    assert draft(event) == told


@pytest.mark.parametrize("event", [liked(ADA, ADA), commented(ADA, ADA)])
def test_nobody_is_told_of_their_own_deeds(event: AnyEvent) -> None:
    assert draft(event) is None


def test_a_post_tells_those_it_mentions_but_not_its_author() -> None:
    event = PostCreated(post_id=POST, author_id=ADA, mentioned_usernames=["ada", "bob"])
    assert mentions(event, [ADA, BOB]) == [Draft(BOB, "mention", ADA, POST, POST)]


def test_two_comments_are_two_notifications_and_two_likes_of_a_post_are_one() -> None:
    other = commented(ADA, BOB)
    assert draft(other) != draft(
        Commented(activity_id=ACTIVITY, comment_id=POST, user_id=ADA, owner_id=BOB, post_id=POST, excerpt="Again")
    )
    again = liked(ADA, BOB)
    assert draft(again) == draft(liked(ADA, BOB))


def test_the_entity_tag_changes_with_the_newest_with_what_was_read_and_with_what_was_asked() -> None:
    state = State(new_id(), NONE)
    tags = {
        entity_tag(Asked(ADA, 20), state),
        entity_tag(Asked(ADA, 20), State(new_id(), NONE)),
        entity_tag(Asked(ADA, 20), State(state.newest, state.newest)),
        entity_tag(Asked(ADA, 21), state),
        entity_tag(Asked(ADA, 20, cursor="abc"), state),
        entity_tag(Asked(ADA, 20, after=NONE), state),
    }
    assert len(tags) == 6
    assert entity_tag(Asked(ADA, 20), state) in tags
