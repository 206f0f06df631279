"""Litepilot for Django 4.2 and newer: `"litepilot.django"` in INSTALLED_APPS.

    litepilot.django.backend      for DATABASES: SQLite as it likes to be used, on a primary and on replicas
    litepilot.django.middleware   ReplayReadonlyWrites, first in MIDDLEWARE
    litepilot.django.errors       NotPrimaryError, SplitBrainError
    litepilot.django.signals      primary_changed, split_brain_detected
    litepilot.django.views        health
    manage.py litepilot           config, check, run, status, primary
    manage.py migrate             as ever, but only where it can be

`LITEFS = {…}` in the settings says what `litepilot.yml` says otherwise: `litepilot.settings`.
"""
