"""The one check that an entry goes through, from the page and from the API."""

from django import forms

from guestbook.models import Entry


class EntryForm(forms.ModelForm):
    class Meta:
        model = Entry
        fields = ["text"]
        widgets = {"text": forms.TextInput(attrs={"placeholder": "Leave a word", "autofocus": True})}
