<?php

use App\Jobs\CountWords;
use App\Models\Note;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Route;

Route::get('healthz', fn() => DB::select('SELECT count(*) AS tables FROM sqlite_master'));

Route::get('notes', fn() => Note::orderBy('id')->get());

Route::post('notes', fn(Request $request) => DB::transaction(function () use ($request) {
    $note = Note::create(['text' => (string) $request->input('text')]);
    // The queue is a table: the job is there if the note is.
    CountWords::dispatch($note->id);
    return response()->json($note, 201);
}));

// A GET that writes: it counts views.
Route::get('notes/{id}', fn(int $id) => DB::transaction(function () use ($id) {
    $note = Note::findOrFail($id);
    $note->increment('views');
    return $note;
}));
