"""`"ENGINE": "litepilot.django.backend"`"""
