"""What the guestbook keeps."""

from django.db import models


class Entry(models.Model):
    author = models.CharField(max_length=150)
    text = models.CharField(max_length=2000)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "entries"

    def __str__(self):
        return f"{self.author}: {self.text[:40]}"

    def as_json(self):
        return {
            "id": self.id,
            "author": self.author,
            "text": self.text,
            "created": self.created.isoformat(timespec="milliseconds"),
        }


class SeenRequest(models.Model):
    """How often a request, by its `X-Request-Id`, has reached this application."""

    request_id = models.CharField(max_length=200, primary_key=True)
    seen = models.PositiveIntegerField(default=0)
