from django.shortcuts import redirect, render

from .models import Note


def notes(request):
    """Lists the notes. The session, a row of the database, counts what this visitor has written."""
    if request.method == "POST":
        Note.objects.create(text=request.POST["text"])
        request.session["written"] = request.session.get("written", 0) + 1
        return redirect("/")
    written = request.session.get("written", 0)
    return render(request, "notes.html", {"notes": Note.objects.order_by("pk"), "written": written})
