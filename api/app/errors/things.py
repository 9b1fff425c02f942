"""What cannot be done with webhooks, schedules, dead letters, adventures and files."""

from __future__ import annotations

from app.errors.kinds import Refused


class WebhookNotFound(Refused):
    """There is no webhook endpoint with that id. `GET /webhooks` lists yours."""

    title = "Webhook endpoint not found"
    status = 404


class DeliveryNotFound(Refused):
    """This endpoint has no delivery with that id. `GET /webhooks/{id}/deliveries` lists those there are."""

    title = "Delivery not found"
    status = 404


class TooManyWebhooks(Refused):
    """You have as many webhook endpoints as there may be. Delete one that is not needed."""

    title = "Too many webhook endpoints"
    status = 409


class WebhookDisabled(Refused):
    """The endpoint is disabled, so nothing is sent to it. `POST /webhooks/{id}/enable` first."""

    title = "The webhook endpoint is disabled"
    status = 409


class DeliveryPending(Refused):
    """The delivery is still being attempted, so it cannot be started again. Wait for its end."""

    title = "The delivery has not ended"
    status = 409


class ScheduleNotFound(Refused):
    """There is no schedule of that name. `GET /schedules` lists those there are."""

    title = "Schedule not found"
    status = 404


class ScheduleExists(Refused):
    """There is a schedule of that name already. Delete it first, or take another name."""

    title = "The schedule exists"
    status = 409


class ScheduleDeclared(Refused):
    """The schedule is declared in the code, and would come back. Pause it, or take it out of the code."""

    title = "The schedule is declared in code"
    status = 409


class DeadLetterNotFound(Refused):
    """No failed run has that fingerprint. `GET /dead-letters` lists those there are."""

    title = "Dead letter not found"
    status = 404


class AdventureNotFound(Refused):
    """There is no adventure with that id. `GET /adventures` lists yours."""

    title = "Adventure not found"
    status = 404


class ChoiceNotFound(Refused):
    """The adventure has no such choice. `GET /adventures/{id}` shows those there are, at the end of each entry."""

    title = "Choice not found"
    status = 422


class ChoiceDecided(Refused):
    """It is decided how the adventure goes on there. Decide at the end of its newest entry."""

    title = "The choice is decided"
    status = 409


class FileNotFound(Refused):
    """There is no such file, or the URL is not signed, or its time is over. Ask for a new URL."""

    title = "File not found"
    status = 404
