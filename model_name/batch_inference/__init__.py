"""Batch inference over tables: conversion from and to Arrow, chunks of rows, and predictions on several threads."""
