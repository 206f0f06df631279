class NotesController < ActionController::API
  def index
    render json: Note.order(:id)
  end

  def create
    note = Note.create!(text: params.require(:text))
    Entry.create!(text: "note #{note.id}")
    render json: note, status: :created
  end

  # A GET that writes: it counts views.
  def show
    note = Note.find(params[:id])
    note.increment!(:views)
    render json: note
  end

  # What the second database holds.
  def audit
    render json: Entry.order(:id)
  end

  def health
    render json: { tables: ApplicationRecord.connection.tables.size }
  end
end
